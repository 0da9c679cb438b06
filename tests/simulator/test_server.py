"""The server over real sockets: what a client and a router see."""

from __future__ import annotations

import asyncio
import contextlib
import time

import aiohttp
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from lodestar_extproc.simulator.instances import ServingOptions, serving
from simulated_engines import a_spec
from waiting import until

PROMPT = {"model": "m", "prompt": "once upon a time " * 40, "max_tokens": 6}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello " * 30}], "max_tokens": 6}
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
FIRST_TOKENS = 3


@pytest.fixture
async def session():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        yield session


@contextlib.asynccontextmanager
async def one_server(**options):
    async with serving([a_spec(kv_blocks=500)], ServingOptions(model="m", **options)) as (server,):
        yield f"http://{server.address}"


async def ask(session, url, body, path="/v1/completions"):
    async with session.post(url + path, json=body) as response:
        return response.status, orjson.loads(await response.read())


async def set_fault(session, url, **fault):
    assert (await ask(session, url, fault, "/fault"))[0] == 200


async def events_of(response):
    """The data of each event, as they come."""
    async for line in response.content:
        if line.startswith(b"data: "):
            yield line[6:].strip()


async def is_whole(response):
    """Whether all six tokens came, and the end; late tokens share an event."""
    *_, last, done = [event async for event in events_of(response)]
    return (orjson.loads(last)["usage"]["completion_tokens"], done) == (6, b"[DONE]")


async def stream(session, url, body, path="/v1/completions"):
    async with session.post(url + path, json=body | STREAM) as response:
        return [event async for event in events_of(response)]


def text_of(events):
    choices = [c for event in events if event != b"[DONE]" for c in orjson.loads(event)["choices"]]
    return "".join(c["delta"].get("content", "") if "delta" in c else c["text"] for c in choices)


async def metrics(session, url):
    async with session.get(url + "/metrics") as response:
        families = text_string_to_metric_families((await response.read()).decode())
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in families
            for sample in family.samples
        }


async def eventually(condition, within_s=5.0):
    deadline_s = time.monotonic() + within_s
    while not await condition():
        assert time.monotonic() < deadline_s, "did not happen in time"
        await asyncio.sleep(0.01)


async def test_every_instance_gives_the_same_answer_whole_and_streamed(session):
    async with serving([a_spec(), a_spec()], ServingOptions(model="m")) as servers:
        urls = [f"http://{server.address}" for server in servers]
        for body, path in ((PROMPT, "/v1/completions"), (CHAT, "/v1/chat/completions")):
            whole = [(await ask(session, url, body, path))[1]["choices"][0] for url in urls]
            texts = [choice.get("text") or choice["message"]["content"] for choice in whole]
            streamed = [text_of(await stream(session, url, body, path)) for url in urls]
            assert len({*texts, *streamed}) == 1
            assert len(texts[0]) == 4 * 6


async def test_a_response_names_the_instance_that_served_it(session):
    async with serving([a_spec(), a_spec()], ServingOptions(model="m")) as servers:
        for server in servers:
            url = f"http://{server.address}"
            for body in (PROMPT, PROMPT | STREAM):
                async with session.post(url + "/v1/completions", json=body) as response:
                    assert response.headers["x-served-by"] == server.address


async def test_usage_counts_tokens_and_cache_hits(session):
    async with one_server() as url:
        _, cold = await ask(session, url, PROMPT)
        _, warm = await ask(session, url, PROMPT)
        last = orjson.loads((await stream(session, url, PROMPT))[-2])
        tokens = 17 * 40 // 4
        assert cold["usage"]["prompt_tokens"] == tokens
        assert cold["usage"]["completion_tokens"] == 6
        assert cold["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
        assert warm["usage"]["prompt_tokens_details"]["cached_tokens"] == (tokens - 1) // 16 * 16
        assert last["usage"] == warm["usage"]


@pytest.mark.parametrize("cache_answers", [True, False])
async def test_the_next_turn_hits_the_answer_where_answers_are_cached(session, cache_answers):
    async with one_server(cache_answers=cache_answers) as url:
        turn = CHAT | {"max_tokens": 64}
        _, first = await ask(session, url, turn, "/v1/chat/completions")
        answer = first["choices"][0]["message"]
        messages = [*CHAT["messages"], answer, {"role": "user", "content": "go on " * 10}]
        _, second = await ask(session, url, turn | {"messages": messages}, "/v1/chat/completions")
        cached = second["usage"]["prompt_tokens_details"]["cached_tokens"]
        assert (cached > first["usage"]["prompt_tokens"]) == cache_answers
        assert cached > 16


async def test_headers_leave_before_the_first_token(session):
    async with one_server() as url:
        await set_fault(session, url, kind="freeze")
        async with session.post(url + "/v1/completions", json=PROMPT | STREAM) as response:
            assert response.status == 200
            assert response.headers["Content-Type"].startswith("text/event-stream")
            await set_fault(session, url, kind="none")
            assert await is_whole(response)


async def test_the_role_comes_together_with_the_first_token(session):
    async with (
        one_server() as url,
        session.post(url + "/v1/chat/completions", json=CHAT | STREAM) as response,
    ):
        first = await anext(aiter(response.content.iter_chunks()))
        assert first[0].count(b"data: ") == 2
        assert b'"role":"assistant"' in first[0]


async def test_an_old_client_gets_the_stream_unframed():
    async with one_server() as url:
        reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
        body = orjson.dumps(PROMPT | STREAM)
        writer.write(b"POST /v1/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body))
        writer.write(body)
        head, _, stream = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert b"chunked" not in head
        assert stream.startswith(b"data: {")
        assert stream.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("raw", "status"), [(b"{", 400), (b'{"prompt": "x"}', 400), (b'{"model": "y"}', 404)]
)
async def test_a_bad_request_gets_an_openai_error(session, raw, status):
    async with (
        one_server() as url,
        session.post(url + "/v1/completions", data=raw) as response,
    ):
        error = orjson.loads(await response.read())["error"]
        assert (response.status, error["code"]) == (status, status)
        assert set(error) == {"message", "type", "param", "code"}


async def test_models_version_and_health_answer(session):
    async with one_server() as url:
        async with session.get(url + "/v1/models") as response:
            assert (await response.json())["data"][0]["id"] == "m"
        async with session.get(url + "/version") as response:
            assert "simulated" in (await response.json())["version"]
        async with session.get(url + "/health") as response:
            assert (response.status, await response.read()) == (200, b"")


async def test_the_metric_page_speaks_vllm(session):
    async with one_server() as url:
        for _ in range(2):
            await ask(session, url, PROMPT)
        page = await metrics(session, url)
        assert page["vllm:num_requests_running", "0", "m"] == 0
        assert page["vllm:num_requests_waiting", "0", "m"] == 0
        assert page["vllm:kv_cache_usage_perc", "0", "m"] == 0
        assert page["vllm:prompt_tokens_total", "0", "m"] == 2 * 170
        assert page["vllm:generation_tokens_total", "0", "m"] == 12
        assert page["vllm:prefix_cache_queries_total", "0", "m"] == 2 * 170
        assert page["vllm:prefix_cache_hits_total", "0", "m"] == 160
        assert page["vllm:num_preemptions_total", "0", "m"] == 0
        assert page["vllm:request_success_total", "length", "0", "m"] == 2
        assert page["vllm:time_to_first_token_seconds_count", "0", "m"] == 2
        assert 0 < page["vllm:time_to_first_token_seconds_sum", "0", "m"] < 5
        assert page["vllm:time_to_first_token_seconds_bucket", "0", "m", "+Inf"] == 2
        assert page["vllm:cache_config_info", "16", "True", "0", "8000", "500"] == 1


async def test_gauges_show_the_last_step_and_a_client_that_leaves_aborts(session):
    async with one_server() as url:

        async def running():
            return (await metrics(session, url))["vllm:num_requests_running", "0", "m"]

        async def is_idle():
            return await running() == 0

        body = PROMPT | STREAM | {"max_tokens": 5000}
        async with session.post(url + "/v1/completions", json=body) as response:
            await anext(events_of(response))
            assert await running() == 1
        await until(is_idle)
        page = await metrics(session, url)
        assert page["vllm:request_success_total", "abort", "0", "m"] == 1
        assert page["vllm:kv_cache_usage_perc", "0", "m"] == 0


async def test_an_unavailable_instance_refuses_new_requests_only(session):
    async with one_server() as url:
        async with session.post(url + "/v1/completions", json=PROMPT | STREAM) as response:
            await set_fault(session, url, kind="503", requests=1)
            status, answer = await ask(session, url, PROMPT)
            assert (status, answer["error"]["code"]) == (503, 503)
            assert await is_whole(response)
        assert (await ask(session, url, PROMPT))[0] == 200


async def test_a_reset_ends_the_connection_without_an_answer(session):
    async with one_server() as url:
        await set_fault(session, url, kind="reset")
        with pytest.raises(aiohttp.ClientConnectionError):
            await ask(session, url, PROMPT)


@pytest.mark.parametrize("after_tokens", [0, FIRST_TOKENS])
async def test_a_dropped_stream_breaks_off_after_its_tokens(session, after_tokens):
    async with one_server() as url:
        await set_fault(session, url, kind="drop_mid_stream", after_tokens=after_tokens)
        async with session.post(url + "/v1/completions", json=PROMPT | STREAM) as response:
            events = events_of(response)
            seen = [await anext(events) for _ in range(after_tokens)]
            with pytest.raises(aiohttp.ClientPayloadError):
                await anext(events)
        assert len(text_of(seen)) == 4 * after_tokens
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await ask(session, url, PROMPT)


async def test_an_error_event_ends_a_stream_under_status_200(session):
    async with one_server() as url:
        await set_fault(session, url, kind="error_event", after_tokens=FIRST_TOKENS)
        *tokens, error, done = await stream(session, url, PROMPT)
        assert len(text_of(tokens)) == 4 * FIRST_TOKENS
        assert orjson.loads(error)["error"]["code"] == 500
        assert done == b"[DONE]"
        assert (await ask(session, url, PROMPT))[0] == 500


async def test_a_slow_instance_takes_its_factor_longer(session):
    async with one_server() as url:
        await set_fault(session, url, kind="slow", factor=10)
        started_s = time.monotonic()
        await ask(session, url, PROMPT | {"prompt": "short"})
        # Six steps of 10 ms.
        assert time.monotonic() - started_s > 0.6


async def test_a_frozen_instance_looks_healthy_and_gives_no_token(session):
    async with one_server() as url:
        await set_fault(session, url, kind="freeze")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await ask(session, url, PROMPT)
        async with session.get(url + "/health") as response:
            assert response.status == 200
        assert (await metrics(session, url))["vllm:num_requests_running", "0", "m"] == 0


@pytest.mark.parametrize(
    "fault",
    [
        {},
        {"kind": "tired"},
        {"kind": "slow", "factor": 0},
        {"kind": "slow", "factor": "3"},
        {"kind": "drop_mid_stream", "after_tokens": -1},
        {"kind": "503", "requests": 0},
        {"kind": "503", "for_s": 3},
    ],
)
async def test_a_fault_that_cannot_be_is_refused(session, fault):
    async with one_server() as url:
        status, answer = await ask(session, url, fault, "/fault")
        assert (status, answer["error"]["code"]) == (400, 400)
        assert (await ask(session, url, PROMPT))[0] == 200


async def test_a_stopping_server_finishes_what_it_has_within_its_grace(session):
    options = ServingOptions(model="m", grace_s=5.0)
    async with serving([a_spec()], options) as (server,):
        url = f"http://{server.address}"
        response = await session.post(url + "/v1/completions", json=PROMPT | STREAM)
    assert await is_whole(response)
    with pytest.raises(aiohttp.ClientConnectorError):
        await ask(session, url, PROMPT)


async def test_without_grace_a_stopping_server_drops_its_streams(session):
    async with one_server() as url:
        body = PROMPT | STREAM | {"max_tokens": 5000}
        response = await session.post(url + "/v1/completions", json=body)
        started_s = time.monotonic()
    with pytest.raises(aiohttp.ClientPayloadError):
        await response.read()
    assert time.monotonic() - started_s < 3.0


async def test_a_taken_port_is_reported_and_leaves_nothing_behind(session):
    async with serving([a_spec()], ServingOptions(model="m")) as (server,):
        port = int(server.address.split(":")[1])
        with pytest.raises(OSError, match="address already in use"):
            async with serving([a_spec()], ServingOptions(port=port)):
                pass
        assert (await ask(session, f"http://{server.address}", PROMPT))[0] == 200
