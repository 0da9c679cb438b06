"""LoopLag: how late the service's event loop was between two of its metric pages."""

from __future__ import annotations

import math
from typing import Self

LAG = "lodestar_event_loop_lag_seconds"


class LoopLag:
    """What a metric *page* counts, by upper bound in seconds; cumulative, as Prometheus has it."""

    def __init__(self, page: str) -> None:
        self._counts: dict[float, float] = {}
        for line in page.splitlines():
            if line.startswith(f'{LAG}_bucket{{le="'):
                bound, _, count = line.removeprefix(f'{LAG}_bucket{{le="').partition('"} ')
                self._counts[math.inf if bound == "+Inf" else float(bound)] = float(count)

    def until(self, page: str) -> Self:
        """What came since, by a later *page*."""
        later = type(self)(page)
        later._counts = {bound: n - self._counts[bound] for bound, n in later._counts.items()}
        return later

    def within_s(self, ratio: float) -> float:
        """The least bound below which *ratio* of the timers fired; NaN without any."""
        total = self._counts.get(math.inf, 0.0)
        within = (bound for bound, n in sorted(self._counts.items()) if n >= ratio * total)
        return next(within, math.nan) if total else math.nan

    def told(self) -> dict[str, float]:
        return {
            "timers": self._counts.get(math.inf, 0.0),
            **{f"p{100 * q:g}_at_most_s": self.within_s(q) for q in (0.5, 0.99, 0.999, 1.0)},
        }
