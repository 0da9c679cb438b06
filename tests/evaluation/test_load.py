"""The load client against servers that do what they are told."""

from __future__ import annotations

import asyncio
import contextlib
import math
from dataclasses import replace

import pytest
from aiohttp import web

from lodestar_extproc.evaluation.chats import Arrival, ChatKind
from lodestar_extproc.evaluation.load import LoadClient, first_model
from lodestar_extproc.evaluation.summary import summarise

TOKEN = b'data: {"choices": [{"delta": {"content": "a "}}]}\n\n'
ROLE = b'data: {"choices": [{"delta": {"role": "assistant", "content": ""}}]}\n\n'
DONE = b"data: [DONE]\n\n"


def arrivals(n: int, gap_s: float = 0.0):
    return [Arrival(i * gap_s, ChatKind.QUESTION, (("user", str(i)),), 2) for i in range(n)]


@contextlib.asynccontextmanager
async def serving(handler, path="/v1/chat/completions"):
    app = web.Application()
    app.router.add_route("*", path, handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


def streaming(*pieces: bytes | float):
    """A handler that writes bytes and sleeps for numbers."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"x-served-by": "10.0.0.1:1"})
        await response.prepare(request)
        for piece in pieces:
            if isinstance(piece, bytes):
                await response.write(piece)
            else:
                await asyncio.sleep(piece)
        return response

    return handler


async def load(handler, n: int = 1, **options):
    async with serving(handler) as url:
        return await LoadClient(url, model="m", **options).run(arrivals(n))


async def test_the_first_token_counts_and_nothing_before_it():
    before = (b": keep-alive\n\n", ROLE, b"event: ping\n\n")
    (record,) = await load(streaming(*before, 0.15, TOKEN, 0.1, TOKEN, DONE))
    assert record.failure == ""
    assert (record.status, record.served_by, record.output_chunks) == (200, "10.0.0.1:1", 2)
    assert 0.15 <= record.ttft_s < record.e2e_s - 0.09
    assert record.tpot_s == pytest.approx(record.e2e_s - record.ttft_s)


async def test_events_are_read_however_they_are_cut():
    (record,) = await load(
        streaming(TOKEN[:20], 0.01, TOKEN[20:] + TOKEN[:7], 0.01, TOKEN[7:], DONE)
    )
    assert (record.failure, record.output_chunks) == ("", 2)


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ((TOKEN,), "broke off"),
        ((TOKEN, b'data: {"error": {"code": 500}}\n\n', DONE), "error event"),
        ((b"data: {broken\n\n", DONE), "JSONDecodeError"),
        ((b"data: 7\n\n", DONE), "no object"),
    ],
)
async def test_an_answer_that_goes_wrong_is_a_failure_with_its_reason(pieces, reason):
    (record,) = await load(streaming(*pieces))
    assert reason in record.failure
    assert record.e2e_s is None


async def test_a_refusal_is_a_failure_with_its_status():
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=503)

    (record,) = await load(refuse)
    assert (record.status, record.failure) == (503, "status 503")


async def test_nobody_there_is_a_failure_of_each_request(unused_tcp_port):
    client = LoadClient(f"http://127.0.0.1:{unused_tcp_port}", model="m")
    records = await client.run(arrivals(3))
    assert ["ClientConnectorError" in record.failure for record in records] == [True] * 3


async def test_an_answer_that_takes_too_long_is_a_failure():
    (record,) = await load(streaming(TOKEN, 5.0), timeout_s=0.2)
    assert "TimeoutError" in record.failure
    assert record.ttft_s is not None


async def test_requests_go_out_at_their_times_whatever_the_answers():
    seen = []

    async def slow(request: web.Request) -> web.StreamResponse:
        seen.append(asyncio.get_running_loop().time())
        return await streaming(0.5, TOKEN, DONE)(request)

    async with serving(slow) as url:
        await LoadClient(url, model="m").run(arrivals(5, gap_s=0.05))
    assert seen[-1] - seen[0] < 0.45
    assert seen[-1] - seen[0] > 0.15


async def test_beyond_the_bound_requests_are_not_sent():
    records = await load(streaming(0.2, TOKEN, DONE), n=5, max_in_flight=2)
    assert (
        sorted(record.failure for record in records)
        == ["", ""] + ["not sent: 2 requests are in flight"] * 3
    )


async def test_the_model_is_the_first_the_server_names():
    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "m1"}, {"id": "m2"}]})

    async with serving(models, "/v1/models") as url:
        assert await first_model(url) == "m1"


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"data": []}', '{"data": [1]}'])
async def test_a_server_that_names_no_model_is_reported(body):
    async def models(_: web.Request) -> web.Response:
        return web.Response(text=body)

    async with serving(models, "/v1/models") as url:
        with pytest.raises(ValueError, match="names no model"):
            await first_model(url)


async def test_a_summary_counts_failures_and_times_the_rest():
    served = await load(streaming(TOKEN, TOKEN, DONE), n=4)
    failed = await load(streaming(TOKEN), n=2)
    summary = summarise(served + failed)
    assert (summary.requests, summary.failed) == (6, 2)
    assert summary.ttft_mean_s == pytest.approx(sum(r.ttft_s for r in served) / 4)
    assert summary.ttft_p50_s <= summary.ttft_p90_s <= summary.ttft_p99_s
    assert math.isnan(summarise(failed).ttft_mean_s)


USAGE = (
    b'data: {"choices": [], "usage": {"prompt_tokens": 40,'
    b' "prompt_tokens_details": {"cached_tokens": 32}}}\n\n'
)


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        (USAGE, (40, 32)),
        (USAGE.replace(b'{"cached_tokens": 32}', b"null"), (40, 0)),
        (b'data: {"choices": [], "usage": {"prompt_tokens": 40}}\n\n', (40, None)),
        (b"", (None, None)),
    ],
)
async def test_prompt_and_cached_tokens_are_the_engines_own_count(usage, counted):
    (record,) = await load(streaming(TOKEN, usage, DONE))
    assert (record.prompt_tokens, record.cached_tokens) == counted


async def test_a_turn_is_sent_when_the_answer_before_it_has_come_and_the_pause_is_over():
    asked: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append(request.headers["x-request-id"])
        return await streaming(TOKEN, 0.1, DONE)(request)

    def next_turns(arrival: Arrival, ended_at_s: float):
        if arrival.turn == 2:
            return ()
        turns = [replace(arrival, at_s=ended_at_s + 0.1, turn=arrival.turn + 1)]
        # The first turn calls two others, which take no turn of their own.
        return turns if arrival.turn else [*turns, replace(turns[0], session=8, turn=2)]

    first = replace(arrivals(1)[0], session=7)
    async with serving(handler) as url:
        records = await LoadClient(url, model="m").run([first], next_turns)

    assert sorted(asked) == ["7.0", "7.1", "7.2", "8.2"]
    by_turn = {(r.session, r.turn): r for r in records}
    assert by_turn[7, 1].at_s >= by_turn[7, 0].e2e_s + 0.1
    assert by_turn[7, 2].at_s >= by_turn[7, 1].at_s + by_turn[7, 1].e2e_s + 0.1
