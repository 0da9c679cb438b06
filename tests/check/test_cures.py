"""Every cure is applied, and a real Envoy with `serve` and two engines says whether it cures."""

import json

import pytest
import pytest_asyncio

from counted_stack import counted_stack
from json_patch import applied
from lodestar_extproc.check import check
from trapped_files import DEFAULT, TRAPS, WITHOUT_CURE, Trap

ROUNDS = 20
"""A cure may bring places of its own, which other rules are about; never this many."""


def cured(trap: Trap, folder) -> dict:
    """The configuration once the doctor has nothing more to cure in it."""
    config, path = trap.config, folder / "envoy.json"
    for _ in range(ROUNDS):
        path.write_text(json.dumps(config))
        findings = check(path).findings
        if not findings:
            return config
        cure = json.loads(json.dumps([patch.operation for patch in findings[0].cure]))
        assert cure, findings[0]
        config = applied(config, cure)
    raise AssertionError(f"two cures undo each other: {findings}")


def cases():
    """The first way into each trap; the others take their time."""
    rules = set()
    for trap in TRAPS:
        if trap.rule not in WITHOUT_CURE:
            marks = [pytest.mark.slow] if trap.rule in rules else []
            rules.add(trap.rule)
            yield pytest.param(trap, id=str(trap), marks=marks)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory):
    async with counted_stack(tmp_path_factory.mktemp("counted")) as stack:
        yield stack


@pytest.mark.long
@pytest.mark.asyncio(loop_scope="module")
async def test_the_shipped_file_makes_one_decision_a_request(stack):
    assert (await stack.count(DEFAULT)).is_right


@pytest.mark.long
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("trap", [*cases()])
async def test_a_cured_file_makes_one_decision_a_request_served_as_chosen(stack, trap, tmp_path):
    config = cured(trap, tmp_path)

    # The shipped file itself again is counted above.
    if config != DEFAULT:
        count = await stack.count(config)
        assert count.is_right, count
