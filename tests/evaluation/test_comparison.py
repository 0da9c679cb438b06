import dataclasses
import math

import numpy as np
import orjson
import pytest

from lodestar_extproc.evaluation.comparison import BEST_HEURISTIC, Comparison, half_width
from lodestar_extproc.evaluation.figures import EARLY_WINDOWS, Figures
from lodestar_extproc.evaluation.report import write_report
from lodestar_extproc.evaluation.results import ratios, write_json, write_parts
from lodestar_extproc.evaluation.trial import Cell, Outcome

ONE, TWO = (Cell("prefix50", "a30x8", "steady", load, (10 * load,)) for load in (0.6, 0.9))


def figures(ttft_mean_s, **more):
    values = dict.fromkeys((f.name for f in dataclasses.fields(Figures)), 1.0)
    values |= {"ttft_mean_s": ttft_mean_s, "requests": 10, "failed": 0, "error_mean_ratio": None}
    values |= {"early_ttft_s": (1.0,) * EARLY_WINDOWS, "early_requests": (1,) * EARLY_WINDOWS}
    return Figures(**values | more)


def outcomes(table, **more):
    """{policy: {cell: mean TTFT of each seed}}."""
    return [
        Outcome(cell, seed, policy, figures(ttft_s, **more))
        for policy, cells in table.items()
        for cell, by_seed in cells.items()
        for seed, ttft_s in enumerate(by_seed, start=1)
    ]


def test_a_ratio_is_a_geometric_mean_over_cells_and_seeds():
    comparison = Comparison(
        outcomes(
            {
                "lmetric": {ONE: [1.0, 2.0], TWO: [4.0, 4.0]},
                "learned": {ONE: [0.5, 1.0], TWO: [8.0, 8.0]},
            }
        )
    )
    ratio = comparison.ratio("learned", "lmetric", "ttft_mean")

    assert ratio.value == pytest.approx(1.0)
    assert (ratio.low, ratio.high) == pytest.approx((1.0, 1.0))
    assert (ratio.worst, ratio.worst_cell) == (pytest.approx(2.0), TWO)


def test_the_best_heuristic_is_chosen_by_cell_and_figure_in_hindsight():
    table = {
        "lmetric": {ONE: [1.0, 1.0], TWO: [2.0, 2.0]},
        "least_load": {ONE: [2.0, 2.0], TWO: [1.0, 1.0]},
        "conductor": {ONE: [0.1, 0.1], TWO: [0.1, 0.1]},
        "learned": {ONE: [0.5, 0.5], TWO: [0.5, 0.5]},
    }
    comparison = Comparison(outcomes(table))

    assert comparison.best_heuristic(ONE, "ttft_mean") == "lmetric"
    assert comparison.best_heuristic(TWO, "ttft_mean") == "least_load"
    assert comparison.ratio("learned", BEST_HEURISTIC, "ttft_mean").value == pytest.approx(0.5)


def test_the_interval_is_students():
    assert half_width(np.array([0.1, 0.2, 0.3, 0.4, 0.5])) == pytest.approx(0.19632, rel=1e-4)
    assert math.isnan(half_width(np.array([1.0])))


def test_seeds_of_a_noisy_policy_widen_the_interval():
    quiet, noisy = (
        Comparison(outcomes({"lmetric": {ONE: [1.0] * 3}, "learned": {ONE: values}})).ratio(
            "learned", "lmetric", "ttft_mean"
        )
        for values in ([0.9, 1.0, 1.1], [0.5, 1.0, 2.0])
    )

    assert quiet.high - quiet.low < noisy.high - noisy.low


def test_the_json_holds_every_cell_and_the_ratios_of_the_first_learned_policy(tmp_path):
    table = {
        "lmetric": {ONE: [1.0], TWO: [2.0]},
        "learned": {ONE: [0.5], TWO: [0.5]},
        "learned:model=mlp": {ONE: [0.5], TWO: [0.25]},
    }
    path = tmp_path / "out.json"
    write_json(path, Comparison(outcomes(table)), ["bench"], 1.0)
    read = orjson.loads(path.read_bytes())

    assert len(read["cells"]) == 6
    assert read["cells"][0] | {"policy": "lmetric", "load": 0.6, "seed": 1} == read["cells"][0]
    assert set(read["ratios"]) == {"lmetric", "learned:model=mlp", "best_heuristic"}
    assert read["ratios"]["lmetric"]["ttft_mean"] == pytest.approx(math.sqrt(0.5 * 0.25))
    assert read["ratios"]["best_heuristic"]["worst_cell_ttft_mean"] == pytest.approx(0.5)
    assert read["ratios"]["best_heuristic"]["worst_cell_ttft_p99"] == pytest.approx(1.0)
    assert read["ratios"]["learned:model=mlp"]["ttft_mean_interval"] is None


def test_several_comparisons_are_one_json(tmp_path):
    first = Comparison(outcomes({"lmetric": {ONE: [1.0]}, "learned": {ONE: [0.5]}}))
    second = Comparison(outcomes({"clairvoyant": {TWO: [1.0]}, "learned": {TWO: [2.0]}}))
    write_parts(tmp_path / "all.json", {"agents": first, "bound": second}, ["bench"], 1.0)
    written = orjson.loads((tmp_path / "all.json").read_bytes())

    assert written["ratios"]["best_heuristic"]["ttft_mean"] == 0.5
    assert written["parts"]["bound"]["ratios"]["clairvoyant"]["ttft_mean"] == 2.0
    assert len(written["cells"]) == len(written["parts"]["agents"]["cells"]) == 2


def test_without_a_learned_policy_there_are_no_ratios():
    assert ratios(Comparison(outcomes({"lmetric": {ONE: [1.0]}}))) == {}


def test_the_report_has_its_tables_and_shows_its_pictures(tmp_path):
    table = {
        "lmetric": {ONE: [1.0, 1.1], TWO: [2.0, 2.1]},
        "learned": {ONE: [0.5, 0.6], TWO: [0.5, 0.7]},
    }
    write_report(tmp_path, Comparison(outcomes(table)), ["bench", "--seeds", "2"], 60.0)
    text = (tmp_path / "report.md").read_text()

    assert "| lmetric | 0.3" in text
    assert "a30x8 prefix50 0.9" in text
    for picture in ("ratios.png", "loads.png", "start.png"):
        assert f"]({picture})" in text
        assert (tmp_path / picture).stat().st_size > 1000
