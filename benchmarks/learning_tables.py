"""Tables of the learning benchmark, as Markdown, and where in a page they go.

It knows comparisons, not how they were made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from lodestar_extproc.evaluation.comparison import BEST_HEURISTIC, Comparison
from lodestar_extproc.evaluation.figures import EARLY_WINDOW_S
from lodestar_extproc.evaluation.scenarios import SCENARIOS
from lodestar_extproc.evaluation.tables import Rows, markdown, quality_rows, ratio_rows
from lodestar_extproc.evaluation.trial import Cell

FALLBACK = "prefix_affinity_token_load"
COMPARATOR = "prefix_cache"
EARLY_SHOWN = 6


def replaced(page: str, sections: dict[str, str]) -> str:
    """*page* with each section's text between its two marks.

    Raises:
        ValueError: a mark is missing.
    """
    for name, text in sections.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if not pattern.search(page):
            raise ValueError(f"the page has no {begin} ... {end} to write to")
        whole = f"{begin}\n{text.strip()}\n{end}"
        page = pattern.sub(lambda _, whole=whole: whole, page)
    return page


def steady(comparison: Comparison) -> str:
    """The ratios, then where they come from."""
    return "\n".join(
        [
            markdown(ratio_rows(comparison)),
            "Learned over the best fixed rule of each cell, in hindsight, mean / P99 TTFT:\n",
            markdown(_fleet_rows(comparison, BEST_HEURISTIC)),
            f"Learned over {FALLBACK}, mean / P99 TTFT:\n",
            markdown(_fleet_rows(comparison, FALLBACK)),
            "Cells where learned is worse than the best fixed rule of that cell:\n",
            markdown(_lost_rows(comparison)),
        ]
    )


def every_cell(comparison: Comparison) -> str:
    """Mean / P99 TTFT in seconds, means of the seeds; the best of a row is bold."""
    contenders = comparison.contenders
    rows = [["cell", "requests/s", *contenders]]
    for cell in comparison.cells:
        texts = []
        figures = [
            [float(comparison.values(cell, c, f).mean()) for f in ("ttft_mean", "ttft_p99")]
            for c in contenders
        ]
        best = np.array(figures).argmin(axis=0)
        for number, (mean_s, p99_s) in enumerate(figures):
            mean = f"**{mean_s:.3f}**" if number == best[0] else f"{mean_s:.3f}"
            p99 = f"**{p99_s:.2f}**" if number == best[1] else f"{p99_s:.2f}"
            texts.append(f"{mean} / {p99}")
        rows.append([cell.name, f"{cell.rates_per_s[0]:.3g}", *texts])
    return markdown(rows)


def start(comparison: Comparison) -> str:
    """How soon it is better, from nothing: learned's mean TTFT over others' by time of arrival."""
    shown = range(EARLY_SHOWN)
    width = int(EARLY_WINDOW_S)
    rows = [["over", *(f"{width * w} to {width * (w + 1)} s" for w in shown)]]
    rows += [
        [other, *(_early_ratio(comparison, other, w) for w in shown)]
        for other in (COMPARATOR, FALLBACK)
    ]
    return markdown(rows)


def quality(comparison: Comparison) -> str:
    """Models and objectives beside the first learned policy, and what they know."""
    return "\n".join([markdown(ratio_rows(comparison)), markdown(quality_rows(comparison))])


def scenarios(comparison: Comparison) -> str:
    """Learned over the fallback alone, the comparator and lmetric in each scenario."""
    others = list(comparison.heuristics)
    rows = [["scenario", "what happens", *(f"over {o}" for o in others), "worst cell, mean"]]
    for name in dict.fromkeys(cell.scenario for cell in comparison.cells):
        cells = [c for c in comparison.cells if c.scenario == name]
        worst = comparison.ratio(_subject(comparison), FALLBACK, "ttft_mean", cells)
        rows.append(
            [
                name,
                SCENARIOS[name].text,
                *(_both(comparison, other, cells) for other in others),
                f"{worst.worst:.2f} {worst.worst_cell.fleet} {worst.worst_cell.workload}",
            ]
        )
    return markdown(rows)


def _subject(comparison: Comparison) -> str:
    assert comparison.subject is not None
    return comparison.subject


def _both(comparison: Comparison, other: str, cells: Sequence[Cell]) -> str:
    subject = _subject(comparison)
    ratios = [comparison.ratio(subject, other, f, cells) for f in ("ttft_mean", "ttft_p99")]
    return " / ".join(f"{r.value:.2f}" for r in ratios)


def _fleet_rows(comparison: Comparison, other: str) -> Rows:
    loads = sorted({cell.load for cell in comparison.cells if cell.load is not None})
    rows = [["fleet", *(f"load {load:g}" for load in loads), "all"]]
    for fleet in dict.fromkeys(cell.fleet for cell in comparison.cells):
        here = [c for c in comparison.cells if c.fleet == fleet]
        groups = [*([c for c in here if c.load == load] for load in loads), here]
        rows.append([fleet, *(_both(comparison, other, g) if g else "" for g in groups)])
    return rows


def _lost_rows(comparison: Comparison) -> Rows:
    rows = [["cell", "mean", "P99", "best by mean", "best by P99"]]
    subject = _subject(comparison)
    for cell in comparison.cells:
        mean, p99 = (
            comparison.ratio(subject, BEST_HEURISTIC, f, [cell]).value
            for f in ("ttft_mean", "ttft_p99")
        )
        if max(mean, p99) > 1.0:
            best = [comparison.best_heuristic(cell, f) for f in ("ttft_mean", "ttft_p99")]
            rows.append([cell.name, f"{mean:.2f}", f"{p99:.2f}", *best])
    return rows


def _early_ratio(comparison: Comparison, other: str, window: int) -> str:
    """Geometric mean over cells and seeds; windows without arrivals do not count."""
    logs = list(_early_logs(comparison, other, window))
    return f"{np.exp(np.mean(logs)):.2f}" if logs else ""


def _early_logs(comparison: Comparison, other: str, window: int) -> Iterator[float]:
    found = {(o.cell, o.seed, o.contender): o.figures.early_ttft_s for o in comparison.outcomes}
    for cell in comparison.cells:
        for seed in comparison.seeds:
            mine = found[cell, seed, _subject(comparison)][window]
            theirs = found[cell, seed, other][window]
            if mine and theirs:
                yield float(np.log(mine / theirs))
