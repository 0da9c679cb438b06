"""Tables of the agents' cells, as Markdown: times, and what became of caches and sessions.

It knows comparisons, not how they were made.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lodestar_extproc.evaluation.comparison import BEST_HEURISTIC, Comparison
from lodestar_extproc.evaluation.tables import Rows, markdown, ratio_rows, ratio_text
from lodestar_extproc.evaluation.trial import Cell

COMPARED = (("ttft_mean", "mean TTFT"), ("ttft_p99", "P99 TTFT"), ("e2e_mean", "end to end"),
            ("session_turn", "session"))  # fmt: skip
"""Figures that are compared with the best rule's, each with the rule that is best by it."""


def ratios(comparison: Comparison) -> str:
    """Learned over the best fixed rule of each cell, then over each rule everywhere."""
    return "\n".join(
        [
            "Learned over the best of all fixed rules of each cell, in hindsight (mean, P99):\n",
            markdown(_by_fleet(comparison)),
            "The same over all cells, each figure against the rule that is best by it:\n",
            markdown(_over_best(comparison)),
            markdown(ratio_rows(comparison)),
        ]
    )


def every_cell(comparison: Comparison) -> str:
    """Learned and the best fixed rules of each cell, means of the seeds."""
    rows = [["cell", "policy", "TTFT mean, ms", "P99, ms", "end to end, s", "session, s a turn",
             "hits", "computed again", "moves a turn"]]  # fmt: skip
    for cell in comparison.cells:
        best = [comparison.best_heuristic(cell, f) for f in ("ttft_mean", "ttft_p99")]
        shown = dict.fromkeys([_subject(comparison), *best])
        rows += [[cell.name, name, *_figures(comparison, cell, name)] for name in shown]
    return markdown(rows)


def bound(comparison: Comparison) -> str:
    """Learned over those who try each request on copies of the engines."""
    return markdown(ratio_rows(comparison))


def _subject(comparison: Comparison) -> str:
    assert comparison.subject is not None
    return comparison.subject


def _figures(comparison: Comparison, cell: Cell, contender: str) -> list[str]:
    found = [o.figures for o in comparison.outcomes if o.cell == cell and o.contender == contender]

    def mean(name: str) -> float:
        return float(np.mean([getattr(figures, name) for figures in found]))

    return [
        f"{1e3 * mean('ttft_mean_s'):.0f}",
        f"{1e3 * mean('ttft_p99_s'):.0f}",
        f"{mean('e2e_mean_s'):.2f}",
        f"{mean('session_turn_s'):.2f}",
        f"{mean('hit_ratio'):.2f}",
        f"{mean('recomputed_ratio'):.2f}",
        f"{mean('moves_per_turn'):.2f}",
    ]


def _by_fleet(comparison: Comparison) -> Rows:
    loads = sorted({cell.load for cell in comparison.cells if cell.load is not None})
    rows = [["fleet", "workload", *(f"load {load:g}" for load in loads), "all"]]
    for fleet, workload in dict.fromkeys((c.fleet, c.workload) for c in comparison.cells):
        here = [c for c in comparison.cells if (c.fleet, c.workload) == (fleet, workload)]
        groups = [*([c for c in here if c.load == load] for load in loads), here]
        rows.append([fleet, workload, *(_both(comparison, cells) for cells in groups)])
    by_load = [[c for c in comparison.cells if c.load == load] for load in loads]
    everything = [*by_load, list(comparison.cells)]
    rows.append(["all", "", *(_both(comparison, cells) for cells in everything)])
    return rows


def _both(comparison: Comparison, cells: Sequence[Cell]) -> str:
    found = [
        comparison.ratio(_subject(comparison), BEST_HEURISTIC, figure, cells)
        for figure in ("ttft_mean", "ttft_p99")
    ]
    return " / ".join(f"{ratio.value:.2f}" for ratio in found)


def _over_best(comparison: Comparison) -> Rows:
    rows = [["figure", "geometric mean", "worst cell"]]
    for figure, name in COMPARED:
        ratio = comparison.ratio(_subject(comparison), BEST_HEURISTIC, figure)
        rows.append([name, ratio_text(ratio), f"{ratio.worst:.2f} ({ratio.worst_cell.name})"])
    return rows
