"""Tables of a comparison, for the terminal and for Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from lodestar_extproc.evaluation.comparison import BEST_HEURISTIC, Comparison, Ratio, half_width
from lodestar_extproc.evaluation.fitted_table import FittedTable
from lodestar_extproc.evaluation.trial import Cell

RATIO_FIGURES = ("ttft_mean", "ttft_p99", "e2e_mean", "tpot_mean")
Rows = list[list[str]]


def cell_rows(comparison: Comparison, cells: Sequence[Cell] = ()) -> Rows:
    """Mean over the seeds of each policy's figures in each cell; the first row is the heading."""
    rows = [["cell", "policy", "TTFT mean s", "P99 s", "E2E mean s", "TPOT mean ms", "failed"]]
    for cell in cells or comparison.cells:
        for contender in comparison.contenders:
            mean, p99, e2e, tpot = (
                comparison.values(cell, contender, figure) for figure in RATIO_FIGURES
            )
            failed = sum(
                o.figures.failed
                for o in comparison.outcomes
                if o.cell == cell and o.contender == contender
            )
            rows.append(
                [
                    cell.name,
                    contender,
                    _with_interval(mean),
                    _with_interval(p99),
                    f"{e2e.mean():.2f}",
                    f"{1e3 * tpot.mean():.1f}",
                    str(failed),
                ]
            )
    return rows


def ratio_rows(comparison: Comparison, cells: Sequence[Cell] = ()) -> Rows:
    """The learned policy over every other one, with intervals, and its worst cell."""
    subject = comparison.subject
    assert subject is not None
    others = [c for c in comparison.contenders if c != subject]
    if comparison.heuristics:
        others.append(BEST_HEURISTIC)
    rows = [
        ["over", "TTFT mean", "P99", "E2E mean", "TPOT mean", "worst cell, mean", "worst cell, P99"]
    ]
    for other in others:
        ratios = [comparison.ratio(subject, other, f, cells) for f in RATIO_FIGURES]
        worst = [f"{r.worst:.2f} ({r.worst_cell.name})" for r in ratios[:2]]
        rows.append([other, *(ratio_text(r) for r in ratios), *worst])
    return rows


def quality_rows(comparison: Comparison) -> Rows:
    """How good the predictions and the choices of learned policies were, over all runs."""
    rows = [
        [
            "policy",
            "by the model",
            "error mean",
            "error median",
            "in the 80 % interval",
            "agrees with clairvoyant",
            "regret ms",
        ]
    ]
    for contender in comparison.contenders:
        found = [o.figures for o in comparison.outcomes if o.contender == contender]
        if found[0].error_mean_ratio is None:
            continue
        regret_s = _mean(f.regret_s for f in found)
        rows.append(
            [
                contender,
                *(
                    _percent(_mean(values))
                    for values in (
                        [f.model_share for f in found],
                        [f.error_mean_ratio for f in found],
                        [f.error_median_ratio for f in found],
                        [f.coverage_ratio for f in found],
                        [f.agreement_ratio for f in found],
                    )
                ),
                "" if regret_s is None else f"{1e3 * regret_s:.1f}",
            ]
        )
    return rows


def ratio_text(ratio: Ratio) -> str:
    """The value and how far it can be trusted."""
    if math.isnan(ratio.low):
        return f"{ratio.value:.3f}"
    return f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"


def cell_table(comparison: Comparison) -> FittedTable:
    """For the terminal."""
    return table("TTFT by cell, mean of the seeds", cell_rows(comparison))


def ratio_table(comparison: Comparison) -> FittedTable:
    """For the terminal."""
    title = f"{comparison.subject} over others, geometric mean"
    return table(title, ratio_rows(comparison), left=1)


def markdown(rows: Rows) -> str:
    """*rows*, of which the first is the heading, as a Markdown table."""
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def table(title: str, rows: Rows, *, left: int = 2) -> FittedTable:
    """*rows*, of which the first is the heading, for the terminal; *left* columns are names."""
    head, *body = rows
    return FittedTable(tuple(head), left, title, [tuple(row) for row in body])


def _with_interval(values: np.ndarray) -> str:
    reach = half_width(values)
    return f"{values.mean():.3f}" + ("" if math.isnan(reach) else f" ± {reach:.3f}")


def _mean(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def _percent(ratio: float | None) -> str:
    return "" if ratio is None else f"{100 * ratio:.1f} %"
