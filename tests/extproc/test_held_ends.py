"""An end that comes before the first token it follows waits for it, for a short time."""

from __future__ import annotations

import asyncio

import pytest
from test_extproc_server import answer, log_entry_message, log_message, replies_to, running

from extproc_fakes import FakeRouters
from lodestar_extproc import names
from lodestar_extproc.completion import Completion, Outcome
from lodestar_extproc.extproc import held_ends
from lodestar_extproc.extproc.held_ends import MAX_IN_VAIN, MAX_PASSED, HeldEnds
from waiting import until


def an_end(decision_id="pool.1", **changes) -> Completion:
    changes = {"served": "10.0.0.1:8000", "response_code": 200} | changes
    return Completion(1.0, Outcome.SERVED, decision_id=decision_id, **changes)


@pytest.fixture
def told():
    return []


@pytest.fixture
def ends(told):
    """At work: an answer has been observed."""
    ends = HeldEnds(told.append)
    ends.observed("pool.0")
    ends.end(an_end("pool.0"))
    told.clear()
    return ends


async def test_an_end_waits_for_what_is_still_to_be_observed(ends, told):
    ends.end(an_end())
    assert told == []
    ends.observed("pool.1")
    assert told == [an_end()]


async def test_an_end_that_comes_last_waits_for_nothing(ends, told):
    ends.observed("pool.1")
    ends.end(an_end())
    assert told == [an_end()]


async def test_no_end_is_lost_and_none_comes_twice(ends, told, monkeypatch):
    monkeypatch.setattr(held_ends, "HOLD_S", 0.01)
    ends.end(an_end())
    assert await until(lambda: told == [an_end()])
    ends.observed("pool.1")
    await asyncio.sleep(0.05)
    assert told == [an_end()]
    ends.end(an_end("pool.2"))
    ends.flush()
    assert told == [an_end(), an_end("pool.2")]


@pytest.mark.parametrize(
    "change",
    [
        {"decision_id": ""},
        {"served": None},
        {"response_code": None},
        {"response_code": 204},
        {"is_empty": True},
    ],
)
async def test_what_nobody_will_observe_is_not_waited_for(ends, told, change):
    ends.end(an_end(**change))
    assert told == [an_end(**change)]


@pytest.mark.parametrize("change", [{"response_code": None}, {"is_empty": True}])
async def test_what_is_observed_after_its_end_was_passed_on_is_not_remembered(ends, told, change):
    for number in range(2 * MAX_PASSED):
        ends.end(an_end(f"pool.{number}", **change))
        ends.observed(f"pool.{number}")
    assert len(told) == 2 * MAX_PASSED
    assert n_remembered(ends) == 0


async def test_what_is_observed_after_a_wait_in_vain_is_not_remembered(ends, told, monkeypatch):
    monkeypatch.setattr(held_ends, "HOLD_S", 0.01)
    ends.end(an_end())
    assert await until(lambda: told == [an_end()])
    ends.observed("pool.1")
    assert n_remembered(ends) == 0


async def test_of_answers_that_nobody_observes_the_last_ends_alone_are_remembered(told):
    ends = HeldEnds(told.append)
    for number in range(3 * MAX_PASSED):
        ends.end(an_end(f"pool.{number}"))
    assert len(told) == 3 * MAX_PASSED
    assert n_remembered(ends) == MAX_PASSED


@pytest.mark.parametrize("access_log", [True, False])
async def test_where_no_access_log_comes_no_observed_answer_is_remembered(access_log):
    async with running(FakeRouters(), access_log=access_log) as (server, channel, _, _):
        await replies_to(channel, answer(b"data: {}\n\n"))
        assert n_remembered(server._process.heard.ours) == access_log


def n_remembered(ends: HeldEnds) -> int:
    return sum(map(len, (ends._observed, ends._held, ends._passed)))


async def test_without_an_observer_nothing_waits(told):
    HeldEnds(told.append).end(an_end())
    assert told == [an_end()]


async def test_where_the_observer_is_gone_waiting_ends_until_it_is_back(ends, told):
    for i in range(MAX_IN_VAIN):
        ends.end(an_end(f"pool.{i + 1}"))
        assert len(told) == i
        ends.flush()
    ends.end(an_end("pool.99"))
    assert told[-1].decision_id == "pool.99"
    ends.observed("pool.100")
    ends.end(an_end("pool.101"))
    assert told[-1].decision_id == "pool.99"


async def test_a_first_token_that_the_access_log_overtook_is_told_before_the_end():
    token = b'data: {"choices":[{"text":"a"}]}\n\n'
    order: list[str] = []

    class Routers(FakeRouters):
        def first_token(self, event):
            order.append(f"first token of {event.decision_id}")

        def complete(self, event):
            order.append(f"end of {event.decision_id}")

    async with running(Routers()) as (_, channel, _, listener):
        await replies_to(channel, answer(token, "pool.0"))  # an observer is there
        log = channel.stream_unary(names.ACCESS_LOG_METHOD)()
        await log.write(log_message(log_entry_of("pool.0"), log_entry_of("pool.1")))
        assert await until(lambda: listener.count("log", "served") == 2)
        await replies_to(channel, answer(token, "pool.1"))
        assert await until(lambda: len(order) == 4)
        assert order == [f"{what} of pool.{i}" for i in (0, 1) for what in ("first token", "end")]
        await log.done_writing()


def log_entry_of(decision_id: str) -> bytes:
    made = log_entry_message(decision=decision_id.encode(), inst=b"10.0.0.1:8000", ttft_us=b"5")
    made.response.response_code.value = 200
    return made.SerializeToString()
