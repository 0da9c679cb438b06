"""Several routers over one: what it costs that none sees all requests as they are sent."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lodestar_extproc.evaluation.comparison import half_width
from lodestar_extproc.evaluation.frames import Trouble
from lodestar_extproc.evaluation.scenarios import find_scenario, routers_scenario
from lodestar_extproc.evaluation.trial import Cell, TrialResult

FIGURES = ("ttft_mean", "ttft_p99")


@dataclass(frozen=True, slots=True)
class RouterRatio:
    """So many routers over one, geometric mean over cells and seeds.

    Attributes:
        low, high: its 95 % interval by seeds; NaN with a single one.
        n_cells: that it is the mean of.
    """

    value: float
    low: float
    high: float
    n_cells: int


def router_scenarios(
    counts: Iterable[int],
    frame_ms: int | None,
    loss_ratio: float = 0.0,
    trouble: Trouble = Trouble.NONE,
) -> tuple[str, ...]:
    """The names of the scenarios to be run; one router is always among them."""
    several = sorted({n for n in counts if n > 1})
    return (
        routers_scenario(1, None),
        *(routers_scenario(n, frame_ms, loss_ratio, trouble) for n in several),
    )


def router_ratios(outcomes: Sequence[TrialResult]) -> Mapping[int, Mapping[str, RouterRatio]]:
    """By the number of routers and by figure, of what trials of `router_scenarios` came to."""
    found: dict[int, dict[str, RouterRatio]] = {}
    counts = sorted({find_scenario(o.cell.scenario).n_routers for o in outcomes})
    for n_routers in counts:
        found[n_routers] = {f: _ratio(outcomes, n_routers, f) for f in FIGURES}
    return found


def router_rows(outcomes: Sequence[TrialResult]) -> list[list[str]]:
    """A table of the ratios; the first row is the heading."""
    rows = [["routers", "TTFT mean", "P99", "cells"]]
    for n_routers, figures in router_ratios(outcomes).items():
        texts = [_text(figures[figure]) for figure in FIGURES]
        rows.append([str(n_routers), *texts, str(figures[FIGURES[0]].n_cells)])
    return rows


def router_json(outcomes: Sequence[TrialResult]) -> dict[str, dict[str, float | int]]:
    """The ratios as plain JSON types."""
    return {
        str(n): {
            **{f: ratio.value for f, ratio in figures.items()},
            "cells": figures[FIGURES[0]].n_cells,
        }
        for n, figures in router_ratios(outcomes).items()
    }


def _ratio(outcomes: Sequence[TrialResult], n_routers: int, figure: str) -> RouterRatio:
    """Over the cells of one seed first: the seeds are independent."""
    ones = {_key(o): o for o in outcomes if find_scenario(o.cell.scenario).n_routers == 1}
    logs: dict[int, list[float]] = {}
    cells: set[Cell] = set()
    for outcome in outcomes:
        if find_scenario(outcome.cell.scenario).n_routers == n_routers:
            one = ones[_key(outcome)]
            several_s, one_s = (getattr(o.figures, f"{figure}_s") for o in (outcome, one))
            logs.setdefault(outcome.seed, []).append(math.log(several_s / one_s))
            cells.add(_key(outcome)[0])
    by_seed = np.array([sum(values) / len(values) for values in logs.values()])
    middle, reach = float(by_seed.mean()), half_width(by_seed)
    return RouterRatio(
        math.exp(middle), math.exp(middle - reach), math.exp(middle + reach), len(cells)
    )


def _key(outcome: TrialResult) -> tuple[Cell, int, str]:
    """What is the same but for the number of routers."""
    return replace(outcome.cell, scenario=""), outcome.seed, outcome.contender


def _text(ratio: RouterRatio) -> str:
    if math.isnan(ratio.low):
        return f"{ratio.value:.3f}"
    return f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"
