"""What the demo shows while it runs and at its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.text import Text

from lodestar_extproc.demo.compare import DemoPlan, Progress
from lodestar_extproc.demo.watch import Watch
from lodestar_extproc.evaluation.fitted_table import FittedTable
from lodestar_extproc.evaluation.summary import Summary, summarise


def live(plan: DemoPlan, progress: Progress) -> RenderableType:
    """The whole screen while a policy runs."""
    policy, done_ratio = progress.policy, progress.done_ratio(plan)
    title = f"{policy}: {plan.policies.index(policy) + 1} of {len(plan.policies)}"
    records = progress.client.records if progress.client else []
    running = progress.summaries | {policy: summarise(records)}
    shown: list[RenderableType] = [
        Text(f"{title}, {done_ratio:.0%} of all requests sent", style="bold"),
        ProgressBar(total=1.0, completed=done_ratio, width=40),
        comparison(running, running=policy),
    ]
    if progress.watch is not None:
        shown.append(endpoint_table(progress.watch))
    return Group(*shown)


def comparison(summaries: Mapping[str, Summary], *, running: str = "") -> FittedTable:
    """TTFT by policy, each on the same arrivals."""
    figures = ("requests", "failed", "mean s", "P50 s", "P99 s", "E2E s")
    title = "time to first token, by policy (same arrivals, cold caches)"
    table = FittedTable(("policy", *figures), title=title)
    for policy, s in summaries.items():
        table.add(
            f"{policy} ..." if policy == running else policy,
            str(s.requests),
            str(s.failed),
            *(_seconds(v) for v in (s.ttft_mean_s, s.ttft_p50_s, s.ttft_p99_s, s.e2e_mean_s)),
            emphasis=s.failed > 0,
        )
    return table


def endpoint_table(watch: Watch) -> FittedTable:
    """Every endpoint now: load, prefix hits, predicted and observed TTFT."""
    figures = ("share", "prefill", "decode", "KV", "hit", "predicted s", "observed s")
    table = FittedTable(("endpoint", "on", *figures), left=2, title=_learner_line(watch))
    for endpoint in watch.endpoints:
        chosen = [d for d in watch.decisions if d["chosen"] == endpoint["address"]]
        timed = [d for d in chosen if d["ttft_s"] is not None]
        prompt_tokens = sum(d["prompt_tokens"] for d in chosen)
        hit = sum(d["matched_tokens"] for d in chosen) / prompt_tokens if prompt_tokens else None
        table.add(
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


def problems(progress: Progress) -> Iterator[str]:
    """What went wrong, each kind once."""
    for message in dict.fromkeys(progress.failures.values()):
        policies = [name for name, said in progress.failures.items() if said == message]
        yield f"error: {', '.join(policies)} not run to the end: {message}"
    failures = [r.failure for records in progress.records.values() for r in records if r.failure]
    for reason in dict.fromkeys(failures):
        yield f"failed: {failures.count(reason)} x {reason}"


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
