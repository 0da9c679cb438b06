"""Comparison: figures of policies over cells and seeds, as ratios with confidence intervals.

A ratio is of geometric means: over the cells of one seed first, so that the seeds, which are
independent, say how far it can be trusted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import stdtrit

from lodestar_extproc.endpoint import FloatArray
from lodestar_extproc.evaluation.contenders import parse_contender
from lodestar_extproc.evaluation.trial import Cell, TrialResult

BEST_HEURISTIC = "best_heuristic"
COMPARED = ("ttft_mean", "ttft_p50", "ttft_p99", "e2e_mean", "tpot_mean")
CONFIDENCE = 0.95  # of every interval that a table shows


@dataclass(frozen=True, slots=True)
class Ratio:
    """One policy's figure over another's.

    Attributes:
        low, high: its 95 % interval; NaN with a single seed.
        worst: of any cell, and *worst_cell* which.
    """

    value: float
    low: float
    high: float
    worst: float
    worst_cell: Cell


class Comparison:
    """What came of all trials."""

    def __init__(self, outcomes: Iterable[TrialResult]) -> None:
        self.outcomes = tuple(outcomes)

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """In the order of the trials."""
        return tuple(dict.fromkeys(o.cell for o in self.outcomes))

    @cached_property
    def contenders(self) -> tuple[str, ...]:
        """In the order they were named in."""
        return tuple(dict.fromkeys(o.contender for o in self.outcomes))

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """Rising."""
        return tuple(sorted({o.seed for o in self.outcomes}))

    @cached_property
    def subject(self) -> str | None:
        """The learned policy that all others are compared with: the first one named."""
        return next((c for c in self.contenders if parse_contender(c).learns), None)

    @cached_property
    def heuristics(self) -> tuple[str, ...]:
        """Those among the contenders."""
        return tuple(c for c in self.contenders if parse_contender(c).is_heuristic)

    @cached_property
    def _by_key(self) -> dict[tuple[Cell, str, int], TrialResult]:
        return {(o.cell, o.contender, o.seed): o for o in self.outcomes}

    def values(self, cell: Cell, contender: str, figure: str) -> FloatArray:
        """A figure in every seed, [n_seeds]; *figure* as in `COMPARED`, seconds."""
        found = [self._by_key[cell, contender, seed].figures for seed in self.seeds]
        return np.array([getattr(f, f"{figure}_s") for f in found])

    def best_heuristic(self, cell: Cell, figure: str) -> str:
        """The fixed rule that turned out best in *cell*: known only in hindsight."""
        return min(self.heuristics, key=lambda name: float(self.values(cell, name, figure).mean()))

    def ratio(self, contender: str, other: str, figure: str, cells: Sequence[Cell] = ()) -> Ratio:
        """*contender* over *other*, which may be `BEST_HEURISTIC`; over all cells by default."""
        cells = cells or self.cells
        logs = np.array([self._log_ratios(cell, contender, other, figure) for cell in cells])
        by_seed, by_cell = logs.mean(axis=0), logs.mean(axis=1)
        middle, reach = float(by_seed.mean()), half_width(by_seed)
        worst = int(by_cell.argmax())
        return Ratio(
            math.exp(middle),
            math.exp(middle - reach),
            math.exp(middle + reach),
            float(np.exp(by_cell[worst])),
            cells[worst],
        )

    def _log_ratios(self, cell: Cell, contender: str, other: str, figure: str) -> FloatArray:
        if other == BEST_HEURISTIC:
            other = self.best_heuristic(cell, figure)
        mine, theirs = (self.values(cell, name, figure) for name in (contender, other))
        logs: FloatArray = np.log(mine / theirs)
        return logs


def half_width(values: FloatArray) -> float:
    """Half of the 95 % interval of the mean of independent *values*, by Student's t.

    >>> round(half_width(np.array([1.0, 2.0, 3.0])), 2)
    2.48
    """
    n = len(values)
    if n < 2:
        return math.nan
    quantile = float(stdtrit(n - 1, 0.5 + CONFIDENCE / 2))
    return quantile * float(values.std(ddof=1)) / math.sqrt(n)
