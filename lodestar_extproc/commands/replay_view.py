"""What `replay` prints of its reports."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from lodestar_extproc.evaluation.fitted_table import FittedTable
from lodestar_extproc.evaluation.replay import PoolReport, Times
from lodestar_extproc.evaluation.replay_estimates import PolicyEstimate
from lodestar_extproc.evaluation.replay_reader import ReadCounts
from lodestar_extproc.terminal import Terminal

CAVEAT = (
    "Estimates, not measurements. Each decision is judged alone, in the state that the journal's "
    "own policy had brought about; another policy would have made other queues and caches. "
    "`direct` believes the model's predictions, and so favours what the model favours. `weighted` "
    "needs decisions left to chance: it is shown only where the journal's policy could have chosen "
    "as the other. `agreed` is what was observed where both chose alike, a selection."
)


@contextmanager
def progress(journals: list[Path], counts: ReadCounts) -> Iterator[Callable[[], None]]:
    """A bar where someone looks on."""
    total = sum(path.stat().st_size for path in journals)
    console = Terminal(stderr=True)
    with Progress(console=console, transient=True, disable=not sys.stderr.isatty()) as shown:
        task = shown.add_task("reading", total=total)
        yield lambda: shown.update(task, completed=counts.bytes_read)


def show(pools: list[PoolReport], counts: ReadCounts) -> None:
    """Every pool's report."""
    console = Terminal(highlight=False, markup=False)
    console.print(f"{counts.lines} lines, {counts.bad_lines} of them bad")
    for pool in pools:
        _show(pool, console)


def _show(pool: PoolReport, console: Console) -> None:
    first, last = (datetime.fromtimestamp(s, UTC).isoformat(" ", "seconds") for s in pool.wall_s)
    console.print(f"\npool {pool.pool}: {pool.decisions} decisions, {first} to {last}")
    outcomes = ", ".join(f"{n} {outcome}" for outcome, n in pool.outcomes.items())
    console.print(f"{outcomes}; {pool.unused} unused, {pool.elsewhere} served elsewhere")
    console.print(_decided(pool))
    if pool.error is not None:
        error = pool.error
        console.print(
            f"predictions, of {error.requests} requests: MAPE {error.mape_ratio:.1%}, median APE "
            f"{error.median_ape_ratio:.1%}, observed/predicted {error.bias_ratio:.2f}, "
            f"{error.coverage_ratio:.0%} inside the 80 % interval",
            soft_wrap=True,
        )
    if pool.estimates:
        console.print(_estimated(pool.estimates))
        console.print(CAVEAT)


def _decided(pool: PoolReport) -> FittedTable:
    figures = ("decisions", "TTFT mean s", "P50 s", "P99 s")
    table = FittedTable(("policy", "reason", *figures), left=2)
    for policy in pool.policies:
        table.add(policy.policy, "all", *_times(policy.ttft))
        for reason, times in policy.reasons.items():
            table.add("", reason, *_times(times))
    return table


def _times(times: Times) -> tuple[str, ...]:
    seconds = (times.mean_s, times.p50_s, times.p99_s)
    return (str(times.requests), *(_seconds(s) for s in seconds))


def _estimated(estimates: list[PolicyEstimate]) -> FittedTable:
    figures = ("agrees", "agreed s", "direct s", "direct/made", "weight", "weighted s")
    table = FittedTable(("other policy", *figures))
    for each in sorted(estimates, key=lambda e: e.direct_s or (0.0, 0.0)):
        table.add(
            each.policy,
            f"{each.agreement_ratio:.0%}",
            _seconds(each.agreed_ttft_s),
            _with_error(each.direct_s),
            "-" if each.direct_ratio is None else f"{each.direct_ratio:.2f}",
            f"{each.weight:.2f}",
            _with_error(each.weighted_s),
        )
    return table


def _seconds(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _with_error(estimate: tuple[float, float] | None) -> str:
    return "-" if estimate is None else f"{estimate[0]:.3f} ± {estimate[1]:.3f}"
