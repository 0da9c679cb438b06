"""Spoken: the demo's course in lines, where there is no terminal to draw on."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console

from lodestar_extproc.demo.compare import DemoPlan, Progress
from lodestar_extproc.evaluation.summary import Summary, summarise

INTERVAL_S = 10.0  # a log of the longest default demo then has some twenty lines


class Spoken:
    """Says when a policy begins, how it goes, and how it ended.

    Args:
        clock: monotonic seconds.
    """

    def __init__(
        self,
        plan: DemoPlan,
        progress: Progress,
        console: Console,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plan = plan
        self._progress = progress
        self._console = console
        self._clock = clock
        self._policy = ""
        self._concluded: set[str] = set()
        self._said_at_s = 0.0

    def refresh(self) -> None:
        """Say what is new."""
        progress, now_s = self._progress, self._clock()
        if progress.policy != self._policy:
            self._policy, self._said_at_s = progress.policy, now_s
            number = self._plan.policies.index(progress.policy) + 1
            self._say(f"{progress.policy}: {number} of {len(self._plan.policies)}, starting")
        self._say_ended()
        if (
            progress.client is not None
            and progress.policy not in self._concluded
            and now_s >= self._said_at_s + INTERVAL_S
        ):
            self._said_at_s = now_s
            figures = _figures(summarise(progress.client.records))
            self._say(f"{progress.policy}: {progress.done_ratio(self._plan):.0%}, {figures}")

    def _say_ended(self) -> None:
        progress = self._progress
        for policy, summary in progress.summaries.items():
            if policy not in self._concluded:
                self._concluded.add(policy)
                self._say(f"{policy}: done, {_figures(summary)}")
        for policy in progress.failures:
            if policy not in self._concluded:
                self._concluded.add(policy)
                self._say(f"{policy}: could not be run to its end; the others go on")

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)


def _figures(summary: Summary) -> str:
    if summary.requests == summary.failed:
        return f"{summary.requests} requests ended, {summary.failed} failed"
    return (
        f"{summary.requests} requests ended, {summary.failed} failed, "
        f"TTFT mean {summary.ttft_mean_s:.3f} s, P99 {summary.ttft_p99_s:.3f} s"
    )
