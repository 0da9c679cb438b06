import pytest

from lodestar_extproc.evaluation.bench_names import STANDARD_FLEETS
from lodestar_extproc.evaluation.fleets import NoFleet, find_fleet
from lodestar_extproc.simulator.accelerators import ACCELERATORS


@pytest.mark.parametrize("name", STANDARD_FLEETS)
def test_standard_fleets_have_eight_engines(name):
    assert len(find_fleet(name).specs) == 8


def test_a_file_changes_limits_and_coefficients(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "engines:\n"
        "  - {accelerator: l20, count: 2, kv_blocks: 900, per_token_ms: 0.2, name: l20-small}\n"
        "  - accelerator: v100\n"
    )
    small, same, v100 = find_fleet(str(path)).specs

    assert small == same
    assert (small.accelerator, small.kv_blocks, small.cost.per_token_ms) == ("l20-small", 900, 0.2)
    assert small.cost.base_ms == ACCELERATORS["l20"].cost.base_ms
    assert v100 == ACCELERATORS["v100"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("engines: [{accelerator: a30, kv_block: 3}]", "kv_block.*allowed: accelerator"),
        ("engines: [{accelerator: a31}]", "no accelerator 'a31'; there are a30"),
        ("engines: [{accelerator: a30, kv_blocks: many}]", "kv_blocks must be a number"),
        ("engines: 3", "under the key `engines`"),
        ("engines: [", "mine.yaml"),
        ("engines: []", "1 to 256"),
    ],
)
def test_a_file_that_is_no_fleet_says_why(tmp_path, text, complaint):
    path = tmp_path / "mine.yaml"
    path.write_text(text)

    with pytest.raises(NoFleet, match=complaint):
        find_fleet(str(path))


@pytest.mark.parametrize("name", ["a30", "a30x0", "a30xtwo", "b200x2", "a30x300", "nowhere.yaml"])
def test_a_name_that_is_no_fleet_is_refused(name):
    with pytest.raises(NoFleet):
        find_fleet(name)
