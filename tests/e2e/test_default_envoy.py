"""The default configuration in the newest and the oldest Envoy: choice, first token, end."""

from __future__ import annotations

import asyncio
import json

import pytest

from lodestar_extproc.completion import Outcome
from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.names import DESTINATION
from stack import CHAT, chat
from waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("stream", [True, False])
async def test_the_chosen_endpoint_answers_and_not_a_byte_is_changed(stack, index, stream):
    chosen, other = stack.engines[index], stack.engines[1 - index]
    stack.prefer(chosen, other)
    body = chat(stream=stream)
    for _ in range(10):
        status, answer = await stack.post(body)
        assert (status, answer) == (200, chosen.stream() if stream else chosen.whole())
    posts = [seen for seen in chosen.seen if seen[0] == CHAT]
    assert [seen[2] for seen in posts] == [body] * 10
    assert posts[0][1][DESTINATION] == f"{chosen.address},{other.address}"


@pytest.mark.parametrize("chosen", [0, None])
async def test_a_spoofed_header_changes_nothing(stack, chosen):
    a, b = stack.engines
    if chosen is None:
        # Nothing is chosen: Envoy's own policy must not follow the client either.
        stack.routers.addresses = ()
    else:
        stack.prefer(a, b)
    admin = f"127.0.0.1:{stack.envoy.admin_port}"
    spoofs = {DESTINATION: admin if chosen is None else b.address}
    answers = [await stack.post(chat(), **spoofs) for _ in range(10)]
    allowed = {a.stream()} if chosen == 0 else {a.stream(), b.stream()}
    assert {answer for _, answer in answers} <= allowed


async def test_what_is_no_inference_passes_untouched(stack):
    async with stack.client.get(stack.envoy.url + "/v1/models?x=1") as response:
        assert await response.text() in ("a /v1/models", "b /v1/models")
    body = b'{"prompt": "count me"}'
    await stack.post(body, "/tokenize")
    (seen,) = [s for e in stack.engines for s in e.seen if s[0] == "/tokenize"]
    assert seen[2] == body
    assert DESTINATION not in seen[1]
    assert not stack.routers.routed


async def test_a_refused_request_is_retried_on_the_next_candidate(stack):
    a, b = stack.engines
    stack.prefer(a, b)
    a.status = 503
    status, answer = await stack.post(chat())
    assert (status, answer) == (200, b.stream())
    end = await stack.completion(stack.routers.last_id)
    assert (end.attempts, end.served, end.outcome) == (2, b.address, Outcome.SERVED)
    (event,) = await until(lambda: stack.routers.first_tokens)
    assert event.served == b.address


async def test_the_access_log_joins_by_the_decision_id(stack, wheel):
    chosen = stack.engines[0]
    chosen.prefill_s, chosen.between_tokens_s = 0.1, 0.02
    await stack.post(chat())
    end = await stack.completion(stack.routers.last_id)
    assert end.outcome is Outcome.SERVED
    assert end.stream_id == stack.routers.stream_ids[-1]
    assert len(stack.routers.request_ids[-1]) == 36
    assert (end.served, end.attempts, end.response_code) == (chosen.address, 1, 200)
    assert (end.ttft_s is not None) is wheel.tells_ttft
    assert end.ttft_s is None or 0.1 <= end.ttft_s < 0.15
    assert 0.18 <= end.duration_s < 0.5
    assert end.flags == ()


async def test_the_first_token_is_known_while_the_answer_goes_on(stack):
    stack.engines[0].between_tokens_s = 0.1
    answer = asyncio.create_task(stack.post(chat()))
    event = await until(lambda: stack.routers.first_tokens)
    assert not answer.done()
    assert event[0].decision_id == stack.routers.last_id
    assert event[0].served == stack.engines[0].address
    await answer
    assert stack.listener.count("closed", "observed") == 1


async def test_a_keep_alive_comment_is_no_first_token(stack):
    engine = stack.engines[0]
    engine.keep_alive, engine.prefill_s = True, 0.3
    answer = asyncio.create_task(stack.post(chat()))
    # The comment has come, the token has not.
    await until(lambda: ("message", "response_body") in stack.listener.heard)
    assert not stack.routers.first_tokens
    assert await answer == (200, engine.stream())
    (event,) = await until(lambda: stack.routers.first_tokens)
    assert event.body_began_before


async def test_a_client_that_leaves_before_the_first_token_is_reported_so(stack):
    stack.engines[0].prefill_s = 30.0
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(stack.post(chat()), 0.3)
    end = await stack.completion(stack.routers.last_id)
    assert end.outcome is Outcome.CLIENT_GONE
    assert end.ttft_s is None
    assert 0.2 < end.duration_s < 1.0
    assert not stack.routers.first_tokens


async def test_a_body_that_is_no_json_is_answered_by_an_engine(stack):
    status, answer = await stack.post(b"{")
    assert (status, answer) == (200, stack.engines[0].whole())
    assert stack.routers.routed[0].model == ""


async def test_strict_mode_answers_400_from_here(stack):
    stack.routers.settings = PoolSettings(strict=True)
    status, answer = await stack.post(b"{")
    assert status == 400
    assert "JSON" in json.loads(answer)["error"]["message"]
    assert not [seen for e in stack.engines for seen in e.seen if seen[0] == CHAT]


async def test_a_body_of_5_mb_arrives_whole(stack):
    body = chat(text="x" * 5_000_000)
    status, answer = await stack.post(body)
    assert (status, answer) == (200, stack.engines[0].stream())
    # Envoy asks for the engine's health meanwhile.
    assert body in [seen[2] for seen in stack.engines[0].seen]
    assert stack.routers.routed[0].prompt_bytes > 5_000_000


async def test_a_body_over_envoys_limit_is_413_and_nothing_is_left_open(stack):
    status, _ = await stack.post(chat(text="x" * 34_000_000))
    assert status == 413
    await until(lambda: stack.listener.count("closed", "cut") == 1)
    assert not stack.routers.routed


async def test_200_concurrent_streams_keep_their_answers_apart(stack):
    a = stack.engines[0]
    a.prefill_s, a.between_tokens_s, a.n_tokens = 0.2, 0.01, 20
    answers = await asyncio.gather(*(stack.post(chat()) for _ in range(200)))
    assert set(answers) == {(200, a.stream())}

    def ended() -> set[str]:
        return {end.decision_id for end in stack.routers.completions if end.decision_id}

    await until(lambda: len(ended()) == 200)
    await until(lambda: {e.decision_id for e in stack.routers.first_tokens} == ended())


async def test_a_broken_router_stops_no_request(stack):
    stack.routers.bug = RuntimeError("a bug of ours")
    status, answer = await stack.post(chat())
    assert status == 200
    assert answer in {engine.stream() for engine in stack.engines}
    assert stack.listener.count("failed", "internal") == 1
