"""The benchmark that writes the tables of docs/results/simulated.md."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import agent_tables  # noqa: E402
import learning  # noqa: E402
import learning_tables as tables  # noqa: E402

from lodestar_extproc.evaluation.bench_names import SCENARIO_NAMES  # noqa: E402
from lodestar_extproc.evaluation.comparison import Comparison  # noqa: E402
from lodestar_extproc.evaluation.trial import Cell, Trial, run_trial  # noqa: E402
from lodestar_extproc.policies.heuristics import HEURISTICS  # noqa: E402

NOWHERE = Path("no-traces")


@pytest.fixture(scope="module")
def comparison():
    outcomes = []
    for scenario, load in (("steady", 0.6), ("steady", 0.8), ("noise", 0.8)):
        for seed in (1, 2):
            cell = Cell("prefix50", "a30x8", scenario, load, (17.6 * load,))
            outcomes += run_trial(
                Trial(cell, seed, 60, (*learning.FIXED_RULES, "learned"), NOWHERE)
            )
    return Comparison(outcomes)


@pytest.mark.parametrize("quick", [True, False])
def test_the_page_has_a_place_for_every_table(quick):
    for part in learning.parts(NOWHERE, quick=quick):
        page = (ROOT / "docs" / part.page).read_text()
        sections = dict.fromkeys(part.tables, "a table")

        assert tables.replaced(page, sections).count("a table") == len(sections)


def test_all_of_it_is_the_cells_seeds_and_scenarios_that_are_promised():
    steady, variants, scenarios, agents, _ = learning.parts(NOWHERE, quick=False)

    assert sum(len(s.cells(print)) for s in steady.studies) == 49
    assert {s.seeds for s in steady.studies} == {(1, 2, 3, 4, 5)}
    assert {s.scenarios for s in scenarios.studies} == {SCENARIO_NAMES}
    assert "learned" in variants.studies[0].contenders
    assert sum(len(s.cells(print)) for s in agents.studies) == 18
    assert {s.seeds for s in agents.studies} == {(1, 2, 3, 4, 5)}
    assert all(set(HEURISTICS) <= set(s.contenders) for s in agents.studies)


def test_the_tables_of_agents_name_the_best_rule_of_each_cell():
    cell = Cell("agent_sessions", "unequal-48k", "steady", 0.6, (16.0,))
    rules = ("round_robin", "prefix_affinity_token_load")
    agents = Comparison(run_trial(Trial(cell, 1, 300, ("learned", *rules), NOWHERE)))
    every_cell = agent_tables.every_cell(agents)

    assert "| unequal-48k | agent_sessions | " in agent_tables.ratios(agents)
    assert "| learned |" in every_cell
    assert "prefix_affinity_token_load" in every_cell
    assert "round_robin" not in every_cell
    assert "over" in agent_tables.bound(agents)


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
