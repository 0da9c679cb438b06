"""What the demo shows while it runs and at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lodestar_extproc.demo.watch import Watch
from lodestar_extproc.evaluation.load import LoadRecord
from lodestar_extproc.evaluation.summary import Summary, summarise


def live(
    plan: Sequence[str],
    done: Mapping[str, Summary],
    policy: str,
    watch: Watch | None,
    records: Sequence[LoadRecord],
    progress_ratio: float,
) -> RenderableType:
    """The whole screen while *policy* runs.

    Args:
        progress_ratio: of the whole demo, 0 to 1.
    """
    title = f"{policy}: {plan.index(policy) + 1} of {len(plan)}"
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        Text(title, style="bold"),
        ProgressBar(total=1.0, completed=progress_ratio, width=40),
        f"{progress_ratio:4.0%}",
    )
    running = dict(done) | {policy: summarise(records)}
    tables = [bar, comparison(running, running=policy)]
    if watch is not None:
        tables.append(endpoint_table(watch))
    return Group(*tables)


def comparison(summaries: Mapping[str, Summary], *, running: str = "") -> Table:
    """TTFT by policy, each on the same arrivals."""
    table = Table(title="time to first token, by policy (same arrivals, cold caches)")
    table.add_column("policy")
    for name in ("requests", "failed", "mean s", "P50 s", "P99 s", "end to end s"):
        table.add_column(name, justify="right")
    for policy, s in summaries.items():
        table.add_row(
            f"{policy} ..." if policy == running else policy,
            str(s.requests),
            Text(str(s.failed), style="red" if s.failed else ""),
            *(_seconds(v) for v in (s.ttft_mean_s, s.ttft_p50_s, s.ttft_p99_s, s.e2e_mean_s)),
        )
    return table


def endpoint_table(watch: Watch) -> Table:
    """Every endpoint now: load, prefix hits, predicted and observed TTFT."""
    table = Table(title=_learner_line(watch))
    table.add_column("endpoint")
    table.add_column("accelerator")
    for name in ("share", "prefill", "decode", "KV", "prefix hit", "predicted s", "observed s"):
        table.add_column(name, justify="right")
    for endpoint in watch.endpoints:
        chosen = [d for d in watch.decisions if d["chosen"] == endpoint["address"]]
        timed = [d for d in chosen if d["ttft_s"] is not None]
        prompt_tokens = sum(d["prompt_tokens"] for d in chosen)
        hit = sum(d["matched_tokens"] for d in chosen) / prompt_tokens if prompt_tokens else None
        table.add_row(
            endpoint["address"],
            endpoint["accelerator"],
            _percent(len(chosen) / max(1, len(watch.decisions))),
            f"{endpoint['prefill_requests']:.0f}",
            f"{endpoint['decode_requests']:.0f}",
            _percent(endpoint["kv_usage_ratio"]),
            _percent(hit),
            _mean([d["predicted_ttft_s"] for d in timed if d["predicted_ttft_s"] is not None]),
            _mean([d["ttft_s"] for d in timed]),
        )
    return table


def closing(summaries: Mapping[str, Summary], model_share: float | None) -> str:
    """The plain words at the end."""
    lines = []
    learned = summaries.get("learned")
    if learned is not None:
        for policy, other in summaries.items():
            if policy != "learned":
                mean = _ratio(other.ttft_mean_s, learned.ttft_mean_s)
                p99 = _ratio(other.ttft_p99_s, learned.ttft_p99_s)
                lines.append(f"learned against {policy}: mean TTFT {mean}, P99 {p99}")
    if model_share is not None:
        lines.append(f"after burn-in the model made {model_share:.0%} of the decisions")
    failed = sum(s.failed for s in summaries.values())
    lines.append(f"failed requests: {failed}")
    lines.append("engines are simulated: read ratios, not seconds")
    return "\n".join(lines)


def _learner_line(watch: Watch) -> str:
    known: dict[str, Any] = watch.learner
    if not known:
        return "endpoints"
    error = known.get("error_ratio")
    shown = "unknown" if error is None else f"{error:.0%}"
    return f"learned from {known['samples']} first tokens, median error {shown} ({known['state']})"


def _ratio(other_s: float, learned_s: float) -> str:
    if not (learned_s > 0 and other_s > 0):
        return "unknown"
    return (
        f"{other_s / learned_s:.2f}x lower"
        if other_s >= learned_s
        else (f"{learned_s / other_s:.2f}x higher")
    )


def _seconds(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3f}"


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f}" if values else ""


def _percent(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.0%}"
