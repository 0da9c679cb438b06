"""What became of a request, through a real Envoy: answers from public reports, told apart."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import time

import pytest

from engine_stack import engine_stack
from lodestar_extproc.completion import Outcome
from lodestar_extproc.routing.ending import Ending
from lodestar_extproc.routing.label import Label
from scripted_engine import DONE, ROLE, WRONG, Script, ScriptedEngine, chunk, good, in_one_piece
from waiting import until

pytestmark = pytest.mark.truth

CHAT = "/v1/chat/completions"
LONG = "the grey heron stands in the reeds and counts each passing boat aloud. " * 60


def body(text: str = LONG, *, stream: bool = True) -> bytes:
    message = {"role": "user", "content": text}
    return json.dumps({"model": "m", "stream": stream, "messages": [message]}).encode()


def over(seconds: float, data: bytes, n_parts: int = 10, **headers: str) -> Script:
    """*data*, in pieces over that time."""
    size = -(-len(data) // n_parts)
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    return Script(tuple((seconds / n_parts, piece) for piece in pieces), headers=dict(headers))


async def ended(stack, *bodies: bytes):
    """What became of the last of them."""
    for each in bodies:
        await stack.decided(CHAT, each)
    return stack.recorder.ended_requests[-1]


WORDS = b"".join(chunk(content=os.urandom(400).hex()) for _ in range(10)) + chunk("stop") + DONE


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
async def test_an_answer_that_streams_for_long_in_any_coding_is_no_silence(coding, tmp_path):
    """Whether it can be read here or not."""
    data = gzip.compress(WORDS) if coding == "gzip" else b"\x1b\xff" + os.urandom(4000)
    slow = ScriptedEngine(over(4.0, data, **{"content-encoding": coding}))
    engines = [slow, ScriptedEngine(good(0.01))]
    async with engine_stack(tmp_path, engines, frozen_after_s=1.0) as stack:
        asked = [asyncio.create_task(stack.ask(CHAT, body(f"{i} {LONG}"))) for i in range(2)]
        while not all(task.done() for task in asked):
            await stack.ask(CHAT, body("hi"))
            assert stack.router.fleet.health.all_healthy
            slow.script = good(0.01)
            await asyncio.sleep(0.1)
        expected = Ending.SERVED if coding == "gzip" else Ending.UNREADABLE
        assert await until(
            lambda: expected in [e.ending for e in stack.recorder.ended_requests if e.waited_s > 3]
        )


async def test_an_answer_in_one_piece_to_a_stream_teaches_no_time(tmp_path):
    engines = [ScriptedEngine(in_one_piece(0.3))]
    async with engine_stack(tmp_path, engines, policy="learned") as stack:
        request = await ended(stack, body(), body())
        assert request.ending is Ending.SERVED
        assert (request.label, request.ttft_s) == (Label.UNSTREAMED, None)
        assert stack.router.learner.status().endpoints == ()


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(
            b"data: " + json.dumps({"choices": [], "usage": {}}).encode() + b"\n\n", id="usage"
        ),
        pytest.param(b": keep-alive\n\n", id="a comment"),
        pytest.param(b":\r\n\r\n", id="a comment in CRLF"),
        pytest.param(b"\n\n\n", id="blank lines"),
        pytest.param(ROLE, id="a role"),
        pytest.param(b'event: ping\ndata: {"type": "ping"}\n\n', id="a ping"),
    ],
)
async def test_what_comes_before_content_is_no_first_token(first, tmp_path):
    parts = ((0.01, first), (0.5, chunk(content="hello") + chunk("stop") + DONE))
    async with engine_stack(tmp_path, [ScriptedEngine(Script(parts))]) as stack:
        request = await ended(stack, body())
        assert request.ending is Ending.SERVED
        assert request.ttft_s > 0.45


@pytest.mark.parametrize(
    ("fault", "ending", "outcome"),
    [
        ("abort at first", Ending.ERRORED, Outcome.FAILED),
        ("an error event", Ending.ERRORED, Outcome.FAILED),
        ("500", Ending.ERRORED, Outcome.FAILED),
        ("429", Ending.TURNED_AWAY, Outcome.REFUSED),
        ("401", Ending.TURNED_AWAY, Outcome.REFUSED),
        ("an empty 200", Ending.EMPTY, Outcome.EMPTY),
        ("204", Ending.EMPTY, Outcome.EMPTY),
        ("only [DONE]", Ending.EMPTY, Outcome.EMPTY),
        ("HTML under 200", Ending.EMPTY, Outcome.EMPTY),
    ],
)
async def test_what_is_no_answer_fills_no_cache_and_is_no_time(fault, ending, outcome, tmp_path):
    async with engine_stack(tmp_path, [ScriptedEngine(WRONG[fault])]) as stack:
        request = await ended(stack, body())
        assert (request.ending, request.completion.outcome) == (ending, outcome)
        assert request.ttft_s is None
        again = await ended(stack, body())
        assert again.decision.candidates.matched_tokens[0] == 0


REASON = b'{"error": {"message": "the prompt is too long", "code": 400}}'


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize("at", [len(REASON), 20], ids=["one piece", "two"])
async def test_a_refusal_that_speaks_of_the_request_blames_nobody(status, at, tmp_path):
    """Though its body says `error`."""
    parts = ((0.002, REASON[:at]), (0.01, REASON[at:]))
    script = Script(parts[: 1 + (at < len(REASON))], status, "application/json")
    async with engine_stack(tmp_path, [ScriptedEngine(script) for _ in range(2)]) as stack:
        for i in range(12):
            request = await ended(stack, body(f"{i} {LONG}"))
            assert request.ending is Ending.REFUSED
        assert stack.router.fleet.health.all_healthy


async def test_one_bad_prompt_takes_out_nobody(tmp_path):
    """Both engines answer it 500, and its client asks again and again."""
    engines = [ScriptedEngine(WRONG["500"]) for _ in range(2)]
    async with engine_stack(tmp_path, engines) as stack:
        await ended(stack, *[body()] * 8)
        states = {
            e.address: stack.router.fleet.health.state(e.address, time.monotonic()) for e in engines
        }
        assert set(states.values()) == {"healthy"}
        for engine in engines:
            engine.script = good(0.01)
        assert (await ended(stack, body("hi"))).ending is Ending.SERVED
