"""Pictures of a comparison. It knows matplotlib, and nothing of how figures came about."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from lodestar_extproc.evaluation.comparison import BEST_HEURISTIC, Comparison
from lodestar_extproc.evaluation.figures import EARLY_WINDOW_S, EARLY_WINDOWS
from lodestar_extproc.evaluation.trial import Cell

DOTS_PER_INCH = 90  # pictures of 100 to 200 KB


def draw_all(folder: Path, comparison: Comparison) -> Iterator[tuple[str, str]]:
    """Write the pictures that *comparison* has data for; gives (file name, caption) of each."""
    mpl.use("agg")
    if comparison.subject is not None and comparison.heuristics:
        yield (
            _save(folder, "ratios.png", _ratios(comparison)),
            (
                "TTFT of the learned policy over the best heuristic of each cell, chosen in "
                "hindsight: mean and P99, geometric means over the seeds."
            ),
        )
    if len({cell.load for cell in comparison.cells}) > 1:
        yield (
            _save(folder, "loads.png", _loads(comparison)),
            ("Mean TTFT against load, by fleet and workload; logarithmic."),
        )
    yield (
        _save(folder, "start.png", _start(comparison)),
        (
            "Mean TTFT of the requests that arrive in each 10 s after a start from nothing, over "
            "that of the first fixed rule; geometric mean over seeds and the cells where "
            "requests still arrive."
        ),
    )


def _save(folder: Path, name: str, figure: Figure) -> str:
    figure.savefig(folder / name, dpi=DOTS_PER_INCH, bbox_inches="tight")
    return name


def _ratios(comparison: Comparison) -> Figure:
    cells, subject = comparison.cells, comparison.subject
    assert subject is not None
    figure = Figure(figsize=(7, 1 + 0.22 * len(cells)))
    axes = figure.subplots()
    rows = np.arange(len(cells))[::-1]
    for metric, marker in (("ttft_mean", "o"), ("ttft_p99", "x")):
        ratios = [comparison.ratio(subject, BEST_HEURISTIC, metric, [c]).value for c in cells]
        axes.plot(ratios, rows, marker, label=metric.removeprefix("ttft_"))
    axes.axvline(1.0, color="grey", linewidth=1)
    axes.set_xscale("log")
    _plain_ticks(axes.xaxis)
    axes.set_yticks(rows, [cell.name for cell in cells], fontsize=7)
    axes.set_xlabel("TTFT over the best heuristic's")
    axes.set_ylim(-1, len(cells))
    axes.legend(loc="upper left")
    axes.grid(axis="x", which="both", alpha=0.3)
    return figure


def _loads(comparison: Comparison) -> Figure:
    fleets = list(dict.fromkeys(cell.fleet for cell in comparison.cells))
    workloads = list(dict.fromkeys(cell.workload for cell in comparison.cells))
    figure = Figure(figsize=(1 + 2.6 * len(workloads), 1 + 2.3 * len(fleets)))
    grid = figure.subplots(len(fleets), len(workloads), squeeze=False)
    for row, fleet in enumerate(fleets):
        for column, workload in enumerate(workloads):
            axes = grid[row][column]
            cells = [c for c in comparison.cells if (c.fleet, c.workload) == (fleet, workload)]
            axes.set_visible(bool(cells))
            _load_curves(axes, comparison, cells)
            axes.set_title(f"{fleet} {Path(workload).stem}", fontsize=7)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncol=len(labels), fontsize=8)
    figure.subplots_adjust(hspace=0.4, wspace=0.3)
    return figure


def _load_curves(axes: Any, comparison: Comparison, cells: list[Cell]) -> None:
    cells = sorted(cells, key=lambda c: c.load or 0.0)
    for contender in comparison.contenders:
        means_s = [float(comparison.values(c, contender, "ttft_mean").mean()) for c in cells]
        width = 2.5 if contender == comparison.subject else 1.0
        loads = [c.load or 0.0 for c in cells]
        axes.plot(loads, means_s, marker=".", linewidth=width, label=contender)
    axes.set_yscale("log")
    _plain_ticks(axes.yaxis)
    axes.tick_params(labelsize=7)


def _plain_ticks(axis: Any) -> None:
    """1, 2 and 5 of each decade, as decimals."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def _start(comparison: Comparison) -> Figure:
    figure = Figure(figsize=(7, 4))
    axes = figure.subplots()
    base = comparison.contenders[0]
    times_s = EARLY_WINDOW_S * (np.arange(EARLY_WINDOWS) + 0.5)
    for contender in comparison.contenders:
        axes.plot(times_s, _early_ratios(comparison, contender, base), marker=".", label=contender)
    axes.set_xlabel("seconds since the start")
    axes.set_ylabel(f"mean TTFT over {base}'s")
    axes.set_ylim(bottom=0.0)
    axes.legend(fontsize=8, loc="lower right")
    axes.grid(alpha=0.3)
    return figure


def _early_ratios(comparison: Comparison, contender: str, base: str) -> list[float]:
    found = {(o.cell, o.seed, o.contender): o.figures.early_ttft_s for o in comparison.outcomes}
    ratios = []
    for window in range(EARLY_WINDOWS):
        logs = [
            np.log(mine / theirs)
            for cell in comparison.cells
            for seed in comparison.seeds
            if (mine := found[cell, seed, contender][window])
            and (theirs := found[cell, seed, base][window])
        ]
        ratios.append(float(np.exp(np.mean(logs))) if logs else float("nan"))
    return ratios
