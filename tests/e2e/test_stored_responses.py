"""What one engine keeps, through a real Envoy: it is asked there, counted whole, and load to its end."""

from __future__ import annotations

import asyncio
import json
import random

import pytest
import pytest_asyncio

from engine_stack import engine_stack
from keeping_engine import KeepingEngine
from lodestar_extproc.decision import Reason
from lodestar_extproc.request import name_key
from waiting import until

pytestmark = pytest.mark.truth

RESPONSES = "/v1/responses"
FIRST_TURN = " ".join(f"the {i} seal reads maps by lantern light" for i in range(1000))
"""About 10,000 tokens."""


@pytest_asyncio.fixture
async def engines():
    return [KeepingEngine() for _ in range(3)]


@pytest_asyncio.fixture
async def stack(engines, tmp_path):
    async with engine_stack(tmp_path, engines) as running:
        yield running


def body(**fields) -> bytes:
    return json.dumps({"model": "m", "store": True} | fields).encode()


async def made(stack, path=RESPONSES, **fields) -> str:
    """The id of a new response."""
    _, answer = await stack.ask(path, body(**fields))
    if not fields.get("stream"):
        return json.loads(answer)["id"]
    created = next(line for line in answer.split(b"\n") if line.startswith(b"data: "))
    return json.loads(created[6:])["response"]["id"]


def keeper(engines, response_id: str) -> KeepingEngine:
    return next(engine for engine in engines if response_id in engine.kept)


@pytest.mark.parametrize("stream", [True, False])
async def test_every_later_turn_goes_to_who_keeps_the_one_before(stack, engines, stream):
    ids = [await made(stack, input=f"chat {i}", stream=stream) for i in range(12)]
    random.Random(3).shuffle(ids)
    for turn in range(3):
        for i, previous in enumerate(ids):
            status, answer = await stack.ask(
                RESPONSES, body(previous_response_id=previous, input=f"and {turn}?", stream=False)
            )
            assert status == 200
            ids[i] = json.loads(answer)["id"]
    # The first turns went round; 36 of 36 later ones were answered by who had them.
    assert {len(engine.kept) for engine in engines} == {16}
    assert [d.ranking.reason for d in stack.recorder.decisions[12:]] == [Reason.KEEPER] * 36


@pytest.mark.parametrize("where", ["instructions", "input"])
async def test_the_prompt_it_goes_on_from_is_counted_and_matched(stack, engines, where):
    first = {"instructions": "", "input": "question one"} | {where: FIRST_TURN}
    previous = await made(stack, **first, stream=True)
    await until(lambda: stack.recorder.ended_requests)
    before = stack.recorder.decisions[-1].candidates.request
    assert before.prompt_tokens > 9_000
    for turn in range(3):
        decision = await stack.decided(
            RESPONSES, body(previous_response_id=previous, input="and then?")
        )
        request = decision.candidates.request
        assert before.prompt_tokens < request.prompt_tokens < before.prompt_tokens + 100
        matched = decision.candidates.matched_tokens[decision.chosen]
        # All that was asked before, to its last whole block; the words of replies are not known.
        assert matched == pytest.approx(
            before.prompt_tokens - turn * engines[0].reply_tokens, abs=40 * (turn + 1)
        )
        assert request.block_hashes[: len(before.block_hashes)] == before.block_hashes
        previous = json.loads((await stack.ask(f"{RESPONSES}/{newest(engines)}"))[1])["id"]
        before = request


def newest(engines) -> str:
    return max((i for e in engines for i in e.kept), key=lambda i: int(i.removeprefix("resp_")))


@pytest.mark.parametrize("prefix", ["", "/openai"])
async def test_what_is_kept_is_fetched_paged_cancelled_and_deleted_where_it_is(
    stack, engines, prefix
):
    path = prefix + RESPONSES
    for number in range(6):
        kept = await made(stack, path, input=f"write {number}", background=True)
        engine = keeper(engines, kept)
        engine.asked.clear()
        assert (await stack.ask(f"{path}/{kept}"))[0] == 200
        assert (await stack.ask(f"{path}/{kept}?stream=true&starting_after=3"))[0] == 200
        assert (await stack.ask(f"{path}/{kept}/input_items?limit=2"))[0] == 200
        assert (await stack.ask(f"{path}/{kept}/cancel", b""))[0] == 200
        assert (await stack.ask(f"{path}/{kept}/cancel", b"{}"))[0] == 200
        assert (await stack.ask(f"{path}/{kept}", method="DELETE"))[0] == 200
        assert len(engine.asked) == 6
    # They are no inference: none was decided, counted or judged.
    assert len(stack.recorder.decisions) == 6
    assert stack.router.fleet.health.all_healthy


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "incomplete"])
async def test_a_background_response_is_load_until_it_has_ended(stack, engines, status):
    decision = await stack.decided(RESPONSES, body(input=FIRST_TURN, background=True))
    kept = newest(engines)
    assert stack.in_flight == 1
    held = stack.router.fleet.everything(0.0)
    tokens = held.prefill_prompt_tokens + held.decode_prompt_tokens
    assert tokens[decision.chosen] == decision.candidates.request.prompt_tokens > 9_000
    assert stack.recorder.ended_requests[-1].is_served
    await stack.ask(f"{RESPONSES}/{kept}")
    await asyncio.sleep(0.3)
    assert stack.in_flight == 1
    keeper(engines, kept).end(kept, status)
    await stack.ask(f"{RESPONSES}/{kept}")
    assert await until(lambda: stack.in_flight == 0)


async def test_a_background_stream_that_its_client_leaves_is_load_until_it_is_cancelled(
    stack, engines
):
    url = stack.envoy.url + RESPONSES
    async with stack.client.post(
        url, data=body(input="write", background=True, stream=True)
    ) as response:
        await response.content.readany()
        response.close()
    await until(lambda: stack.recorder.ended_requests)
    assert stack.in_flight == 1
    await stack.ask(f"{RESPONSES}/{newest(engines)}/cancel", b"{}")
    assert await until(lambda: stack.in_flight == 0)


async def test_a_conversation_is_kept_where_it_was_made(stack, engines):
    for turns in range(6):
        _, answer = await stack.ask("/v1/conversations", b"{}")
        name = json.loads(answer)["id"]
        before = 0.0
        for _ in range(turns + 1):
            decision = await stack.decided(RESPONSES, body(conversation=name, input="x" * 4000))
            request = decision.candidates.request
            assert request.prompt_tokens > before + 1000
            before = request.prompt_tokens
        assert (await stack.ask(f"/v1/conversations/{name}"))[0] == 200
    assert {e.completion.response_code for e in stack.recorder.ended_requests} == {200}


async def test_an_unknown_id_is_learned_from_who_has_it(stack, engines):
    """After a restart of the service, or where another replica decided: each is asked in turn."""
    kept = await made(stack, input="hi")
    stack.reset()
    asked = [(await stack.ask(f"{RESPONSES}/{kept}"))[0] for _ in engines]
    assert 200 in asked
    await until(lambda: stack.router.kept_answers.get(name_key(kept)))
    engine = keeper(engines, kept)
    engine.asked.clear()
    for _ in range(5):
        assert (await stack.ask(f"{RESPONSES}/{kept}"))[0] == 200
    assert len(engine.asked) == 5


async def test_a_response_that_is_gone_blames_nobody_and_is_forgotten(stack, engines):
    ids = [await made(stack, input=f"chat {i}") for i in range(9)]
    for engine in engines:  # all have restarted
        engine.kept.clear()
    for previous in ids:
        fields = {"previous_response_id": previous, "input": "and?"}
        decision = await stack.decided(RESPONSES, body(**fields))
        assert decision.ranking.reason is Reason.KEEPER
        again = await stack.decided(RESPONSES, body(**fields))
        assert again.ranking.reason is not Reason.KEEPER
    assert stack.router.fleet.health.all_healthy


async def test_a_response_that_is_not_to_be_kept_is_not_remembered(stack, engines):
    _, answer = await stack.ask(RESPONSES, body(input="hi", store=False))
    previous = json.loads(answer)["id"]
    decision = await stack.decided(
        RESPONSES, body(previous_response_id=previous, input="and?", store=False)
    )
    assert decision.ranking.reason is Reason.POLICY
