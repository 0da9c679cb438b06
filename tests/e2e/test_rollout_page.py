"""The YAML of docs/rollout.md, as it stands there, through a real Envoy."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from engine_stack import engine_stack
from envoy_process import patient
from lodestar_extproc.config import PoolSettings
from stub_engine import StubEngine
from waiting import until

PAGE = (Path(__file__).parents[2] / "docs" / "rollout.md").read_text()
BLOCKS = [
    YAML(typ="safe").load(text)
    for text in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
]
SETTINGS = [block["lodestar"] for block in BLOCKS if isinstance(block, dict)]
(ROUTES,) = [block for block in BLOCKS if isinstance(block, list)]
PATH = "/v1/completions"
N = 400
"""Of 400 draws of one in twenty, none at all is met once in a billion times; 60 as seldom."""

pytestmark = pytest.mark.long


def a_body(number: int) -> bytes:
    return json.dumps({"model": "m", "prompt": f"{number} " * 50, "stream": True}).encode()


def with_the_pages_routes(config) -> None:
    patient(config)
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]
    (host,) = manager["typed_config"]["route_config"]["virtual_hosts"]
    host["routes"][:0] = ROUTES


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
async def test_each_step_serves(tmp_path, settings):
    async with engine_stack(tmp_path, [StubEngine("a"), StubEngine("b")], **settings) as stack:
        decision = await stack.decided(PATH, a_body(0))
        (ended,) = stack.recorder.ended_requests

        assert decision.policy == settings["policy"]
        assert ended.is_served
        # In shadow Envoy is told nothing, so what it does is not held against it.
        assert not ended.is_ignored


async def test_one_in_twenty_is_decided_by_the_policy_that_the_route_asks_for(tmp_path):
    before = SETTINGS[1]
    assert before == {"policy": "prefix_affinity_token_load"}
    engines = [StubEngine("a", n_tokens=1), StubEngine("b", n_tokens=1)]
    async with engine_stack(tmp_path, engines, edit=with_the_pages_routes, **before) as stack:
        for number in range(N):
            status, _ = await stack.ask(PATH, a_body(number))
            assert status == 200
        await until(lambda: len(stack.recorder.ended_requests) == N)
        by = Counter(decision.policy for decision in stack.recorder.decisions)

    assert by.keys() == {"prefix_affinity_token_load", "learned"}
    assert 1 <= by["learned"] < 60


def test_the_steps_are_settings_that_exist():
    assert len(SETTINGS) == 3
    for settings in SETTINGS:
        PoolSettings(**settings)
