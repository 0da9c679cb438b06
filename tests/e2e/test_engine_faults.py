"""An engine refuses, resets, hangs, freezes or dies under load: what clients and the service see."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import pytest_asyncio

from envoy_process import patient
from process_stack import Engine, ProcessStack, running_processes
from service_faults import enough_is_under_way, more, waits
from steady_load import Sent, SteadyLoad
from waiting import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(200)]

AROUND_S = 1.0
"""So soon an engine that fails at once has to be left alone."""
FROZEN_AFTER_S = 5.0
"""The pool's setting."""
PROBES_S = 4.0
"""Two health checks in a row fail: at most twice their interval and timeout, a second each."""
N_STRUCK = 5
"""Answers under way on the engine when it fails."""
SLACK_S = 20.0
"""For a machine that is busy with other things."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine_faults")
    # Every engine has clients, and none has them all: else a frozen one would end the load.
    settings = {"policy": "least_request", "frozen_after_s": FROZEN_AFTER_S}
    async with running_processes(folder, n_engines=4, edit=patient, **settings) as stack:
        yield stack
        # Whatever befell the engines, all that was taken has been given back.
        await until(stack.nothing_is_open)


async def test_a_busy_engine_costs_no_client_its_answer(stack):
    async with SteadyLoad(stack.envoy.url) as load:
        victim = await a_busy_victim(stack, load)
        broken_s = time.monotonic()
        await victim.break_down("busy")
        noticed_s = await left_alone(stack, victim, AROUND_S + SLACK_S)
        await more(load, 300)
        await victim.break_down("none")
    tried = [at_s for at_s in await victim.tried_at_s() if at_s > broken_s]
    show("answers 503", load, broken_s, noticed_s, tried=len(tried))
    assert tried
    assert not load.problems


async def test_a_resetting_engine_costs_no_more_than_what_was_written_to_it(stack):
    async with SteadyLoad(stack.envoy.url) as load:
        victim = await a_busy_victim(stack, load)
        broken_s = time.monotonic()
        await victim.break_down("reset")
        noticed_s = await left_alone(stack, victim, AROUND_S + SLACK_S)
        await more(load, 300)
        await victim.break_down("none")
    tried = [at_s for at_s in await victim.tried_at_s() if at_s > broken_s]
    late = [each for each in load.problems if each.started_s > noticed_s]
    show("resets", load, broken_s, noticed_s, tried=len(tried), failed_later=len(late))
    assert 0 < len(load.problems) <= len(tried)
    # One at a time is tried on it: after a second, then two, then four.
    assert len(late) <= 8


@pytest.mark.slow
async def test_a_hanging_engine_is_found_out_by_its_silence(stack):
    async with SteadyLoad(stack.envoy.url) as load:
        victim = await a_busy_victim(stack, load)
        broken_s = time.monotonic()
        await victim.break_down("hang")
        noticed_s = await left_alone(stack, victim, FROZEN_AFTER_S + SLACK_S, as_what="frozen")
        await more(load, 100)
        await victim.break_down("none")
    show("hangs", load, broken_s, noticed_s)
    # Its clients had to wait, and then got every byte.
    assert not load.problems


async def test_a_frozen_engine_is_found_out_by_its_health(stack):
    async with SteadyLoad(stack.envoy.url) as load:
        victim = await a_busy_victim(stack, load)
        frozen_s = time.monotonic()
        victim.freeze()
        noticed_s = await left_alone(stack, victim, PROBES_S + SLACK_S)
        await more(load, 100)
        victim.thaw()
    show("frozen", load, frozen_s, noticed_s)
    assert not load.problems


async def test_whoever_asks_after_an_engine_died_is_served_by_another(stack):
    async with SteadyLoad(stack.envoy.url) as load:
        victim = await a_busy_victim(stack, load)
        killed_s = time.monotonic()
        victim.kill()
        dead_s = time.monotonic()
        noticed_s = await left_alone(stack, victim, AROUND_S + SLACK_S)
        await more(load, 300)
        later = load.started_between(dead_s)
        victim.start()
        await victim.ready()
        await until(lambda: is_back(stack, victim))
    show("killed", load, killed_s, noticed_s)
    # The answers it was giving broke off, and nothing else did.
    assert load.problems
    assert {each.served_by for each in load.problems} <= {victim.address, ""}
    assert not [each for each in load.problems if each.started_s > dead_s]
    assert victim.address not in {each.served_by for each in later}


async def a_busy_victim(stack: ProcessStack, load: SteadyLoad) -> Engine:
    """An engine that serves many, while all are well but one, which an earlier test broke."""
    await enough_is_under_way(load)

    async def busiest_address() -> str:
        endpoints = (await stack.service.pool())["endpoints"]
        healthy = [endpoint for endpoint in endpoints if endpoint["state"] == "healthy"]
        busiest = max(healthy, key=lambda endpoint: endpoint["decode_requests"])
        well = len(healthy) >= len(endpoints) - 1
        return busiest["address"] if well and busiest["decode_requests"] >= N_STRUCK else ""

    busiest = await until(busiest_address, 60.0)
    return next(engine for engine in stack.engines if engine.address == busiest)


async def left_alone(
    stack: ProcessStack, engine: Engine, timeout_s: float, *, as_what: str = ""
) -> float:
    """Wait until *engine* is taken for unhealthy, or for *as_what*; the time then."""

    async def is_left() -> bool:
        state = await stack.service.state_of(engine)
        return state == as_what if as_what else state != "healthy"

    await until(is_left, timeout_s)
    return time.monotonic()


async def is_back(stack: ProcessStack, engine: Engine) -> bool:
    """It may be tried again; how soon it is, depends on how good the others are."""
    return await stack.service.state_of(engine) in {"healthy", "probation"}


def show(what: str, load: SteadyLoad, broken_s: float, noticed_s: float, **more: Any) -> None:
    """Print what was measured, for the docs."""
    found = {
        "left_after_s": round(noticed_s - broken_s, 3),
        "until then": waits(load, broken_s, noticed_s),
        "later": waits(load, noticed_s),
        "failed": len(load.problems),
        "failed_as": sorted({_kind(each) for each in load.problems}),
    }
    print(json.dumps({what: found | more}, indent=1))


def _kind(sent: Sent) -> str:
    return sent.problem[:60]
