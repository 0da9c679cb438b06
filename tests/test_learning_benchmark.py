"""The benchmark that writes the tables of docs/results/simulated.md."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import learning  # noqa: E402
import learning_tables as tables  # noqa: E402

from lodestar_extproc.evaluation.bench_names import SCENARIO_NAMES  # noqa: E402
from lodestar_extproc.evaluation.comparison import Comparison  # noqa: E402
from lodestar_extproc.evaluation.trial import Cell, Trial, run_trial  # noqa: E402

NOWHERE = Path("no-traces")


@pytest.fixture(scope="module")
def comparison():
    outcomes = []
    for scenario, load in (("steady", 0.6), ("steady", 0.8), ("noise", 0.8)):
        for seed in (1, 2):
            cell = Cell("prefix50", "a30x8", scenario, load, (17.6 * load,))
            outcomes += run_trial(
                Trial(cell, seed, 150, (*learning.FIXED_RULES, "learned"), NOWHERE)
            )
    return Comparison(outcomes)


@pytest.mark.parametrize("quick", [True, False])
def test_the_page_has_a_place_for_every_table(quick):
    page = (ROOT / "docs" / "results" / "simulated.md").read_text()
    for part in learning.parts(NOWHERE, quick=quick):
        sections = dict.fromkeys(part.tables, "a table")

        assert tables.replaced(page, sections).count("a table") == len(sections)


def test_all_of_it_is_the_cells_seeds_and_scenarios_that_are_promised():
    steady, variants, scenarios = learning.parts(NOWHERE, quick=False)

    assert sum(len(s.cells(print)) for s in steady.studies) == 49
    assert {s.seeds for s in steady.studies} == {(1, 2, 3, 4, 5)}
    assert {s.scenarios for s in scenarios.studies} == {SCENARIO_NAMES}
    assert "learned" in variants.studies[0].contenders


def test_a_page_without_the_marks_is_not_written_to():
    with pytest.raises(ValueError, match="begin steady"):
        tables.replaced("# Benchmarks", {"steady": "a table"})


def test_a_section_is_replaced_and_the_rest_is_left():
    page = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb"

    assert tables.replaced(page, {"x": "new"}) == "a\n<!-- begin x -->\nnew\n<!-- end x -->\nb"


@pytest.mark.parametrize(
    ("table", "telling"),
    [
        (tables.steady, "best_heuristic"),
        (tables.every_cell, "a30x8 prefix50 0.6"),
        (tables.start, "0 to 10 s"),
        (tables.quality, "learned"),
        (tables.scenarios, "steps vary by 20 %"),
    ],
)
def test_every_table_is_a_table(comparison, table, telling):
    text = table(comparison)
    rows = [line for line in text.splitlines() if line.startswith("|")]

    assert telling in text
    assert "nan" not in text
    assert len(rows) >= 3
