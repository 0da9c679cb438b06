"""envoy/variants/full_duplex.yaml in a real Envoy: as Istio asks an Endpoint Picker."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from contextlib import suppress

import pytest
import pytest_asyncio

from envoy_process import cluster_of, connection_manager
from lodestar_extproc.completion import Outcome
from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.names import DESTINATION
from stack import CHAT, chat, running_stack
from waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

SIZES = (1, 61_999, 62_001, 300_000, 5_000_000, 12_000_000)


def never_bypassed(config) -> None:
    """On a busy machine health checks come late, and Envoy goes on without us."""
    del cluster_of(config, "lodestar")["health_checks"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole_stack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("envoy")
    file = "variants/full_duplex.yaml"
    async with running_stack(folder, file, access_log=False, edit=never_bypassed) as stack:
        yield stack


@pytest_asyncio.fixture(loop_scope="module")
async def stack(whole_stack):
    whole_stack.reset()
    yield whole_stack
    assert not [what for what in whole_stack.listener.heard if what[0] == "failed"]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("n_bytes", SIZES)
async def test_not_a_byte_is_changed_either_way(stack, n_bytes, stream):
    a, b = stack.engines
    stack.prefer(b, a)
    body = chat(text="x" * n_bytes, stream=stream)
    status, answer = await stack.post(body)
    assert (status, answer) == (200, b.stream() if stream else b.whole())
    assert b.seen[-1][2] == body
    assert b.seen[-1][1][DESTINATION] == f"{b.address},{a.address}"
    (end,) = await until(lambda: stack.routers.completions)
    assert (end.outcome, end.served) == (Outcome.SERVED, b.address)


@pytest.mark.parametrize("body", [b"x", b"{", bytes(range(256)) * 1000])
async def test_any_bytes_reach_the_chosen_engine_and_its_answer_the_client(stack, body):
    a = stack.engines[0]
    assert await stack.post(body, "/anything") == (200, a.whole())
    assert a.seen[-1][2] == body


async def test_a_large_answer_comes_back_whole(stack):
    a = stack.engines[0]
    a.n_tokens = 40_000
    assert await stack.post(chat(stream=False)) == (200, a.whole())


async def test_a_body_without_a_length_arrives_whole(stack):
    async def parts():
        for i in range(50):
            yield b'{"stream": true, "n": ' if i == 0 else b"0" * 3000
            await asyncio.sleep(0.001)

    async with stack.client.post(stack.envoy.url + CHAT, data=parts()) as response:
        assert await response.read() == stack.engines[0].stream()
    assert len(stack.engines[0].seen[-1][2]) == 22 + 49 * 3000


async def test_a_request_without_a_body_is_chosen_for_at_once(stack):
    a, b = stack.engines
    stack.prefer(b, a)
    for _ in range(4):
        async with stack.client.get(stack.envoy.url + "/v1/models") as response:
            assert await response.text() == "b /v1/models"
    await until(lambda: len(stack.routers.completions) == 4)


async def test_the_first_token_is_seen_while_the_answer_goes_on(stack):
    stack.engines[0].between_tokens_s = 0.1
    answer = asyncio.create_task(stack.post(chat()))
    (event,) = await until(lambda: stack.routers.first_tokens)
    assert not answer.done()
    assert event.served == stack.engines[0].address
    assert await answer == (200, stack.engines[0].stream())


async def test_each_part_of_an_answer_passes_when_it_comes(stack):
    a = stack.engines[0]
    a.between_tokens_s = 0.05
    clock = asyncio.get_running_loop().time
    async with stack.client.post(stack.envoy.url + CHAT, data=chat()) as response:
        at_s = [clock() async for _ in response.content.iter_any()]
    assert len(at_s) >= a.n_tokens
    assert max(after - before for before, after in itertools.pairwise(at_s)) < 0.2


async def test_a_retry_goes_to_the_next_named_and_is_credited_to_who_served(stack):
    a, b = stack.engines
    stack.prefer(a, b)
    a.status = 503
    assert await stack.post(chat()) == (200, b.stream())
    (end,) = await until(lambda: stack.routers.completions)
    assert (end.served, end.outcome) == (b.address, Outcome.SERVED)
    assert stack.routers.first_tokens[0].served == b.address


async def test_without_an_endpoint_the_client_is_told_503(stack):
    stack.routers.addresses = ()
    status, answer = await stack.post(chat())
    assert status == 503
    assert json.loads(answer)["error"]["type"] == "service_unavailable_error"
    assert not [seen for engine in stack.engines for seen in engine.seen if seen[0] == CHAT]


async def test_strict_mode_answers_400_from_here(stack):
    stack.routers.settings = PoolSettings(strict=True)
    status, answer = await stack.post(b"{")
    assert status == 400
    assert "JSON" in json.loads(answer)["error"]["message"]


async def test_a_conformance_test_chooses_and_learns_who_served(stack):
    stack.routers.settings = PoolSettings(conformance_headers=True)
    b = stack.engines[1]
    given = {"test-epp-endpoint-selection": b.address}
    async with stack.client.post(stack.envoy.url + CHAT, data=chat(), headers=given) as response:
        assert await response.read() == b.stream()
        assert response.headers["x-conformance-test-served-endpoint"] == b.address


async def test_clients_that_leave_at_any_moment_break_nothing(stack):
    rng, before = random.Random(0), stack.routers.n_decisions
    for engine in stack.engines:
        engine.prefill_s, engine.between_tokens_s = 0.05, 0.02

    async def leave() -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(stack.post(chat()), rng.uniform(0, 0.2))

    await asyncio.gather(*(leave() for _ in range(100)))
    assert await stack.post(chat()) == (200, stack.engines[0].stream())
    # Every decision has an end, seen on its own stream.
    decided = {f"pool.{i + 1}" for i in range(before, stack.routers.n_decisions)}
    await until(lambda: decided <= {c.decision_id for c in stack.routers.completions})


async def test_200_concurrent_streams_keep_their_answers_apart(stack):
    a = stack.engines[0]
    a.prefill_s, a.between_tokens_s, a.n_tokens = 0.2, 0.01, 20
    answers = await asyncio.gather(*(stack.post(chat()) for _ in range(200)))
    assert set(answers) == {(200, a.stream())}
    await until(lambda: len(stack.routers.completions) == 200)


def with_trailers(config) -> None:
    """HTTP/1 has trailers only where they are asked for."""
    options = {"http_protocol_options": {"enable_trailers": True}}
    connection_manager(config).update(options)
    cluster = cluster_of(config, "engines")
    del cluster["health_checks"]
    for protocol in cluster["typed_extension_protocol_options"].values():
        protocol["explicit_http_config"] = options
    never_bypassed(config)


async def answer_with_trailers(reader, writer) -> None:
    """An engine that says in its trailers which trailer it was sent."""
    await reader.readuntil(b"\r\n\r\n")
    last = (await reader.readuntil(b"\r\n\r\n")).rpartition(b"0\r\n")[2]
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    writer.write(b"6\r\nanswer\r\n0\r\nx-heard: " + last.strip() + b"\r\n\r\n")
    await writer.drain()
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("body", [b"", chat(), b"x" * 200_000])
async def test_trailers_pass_both_ways(tmp_path, body):
    engine = await asyncio.start_server(answer_with_trailers, "127.0.0.1", 0, limit=2**20)
    address = "{}:{}".format(*engine.sockets[0].getsockname())
    file = "variants/full_duplex.yaml"

    def to_engine(config) -> None:
        with_trailers(config)
        host, _, port = address.rpartition(":")
        socket = {"socket_address": {"address": host, "port_value": int(port)}}
        lb_endpoints = [{"endpoint": {"address": socket}}]
        endpoints = [{"lb_endpoints": lb_endpoints}]
        cluster_of(config, "engines")["load_assignment"]["endpoints"] = endpoints

    async with engine, running_stack(tmp_path, file, access_log=False, edit=to_engine) as stack:
        stack.routers.addresses = (address,)
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.envoy.port)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n")
        writer.write(b"transfer-encoding: chunked\r\nte: trailers\r\n\r\n")
        if body:
            writer.write(b"%x\r\n%b\r\n" % (len(body), body))
        writer.write(b"0\r\nx-said: something\r\n\r\n")
        async with asyncio.timeout(60):
            answer = await reader.readuntil(b"\r\n0\r\n")
            trailers = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        assert b" 200 OK" in answer
        assert b"answer" in answer
        assert trailers == b"x-heard: x-said: something\r\n\r\n"
        assert stack.listener.count("message", "request_trailers") == 1
        assert stack.listener.count("message", "response_trailers") == 1
        assert not stack.listener.count("failed", "protocol")


async def test_a_broken_router_stops_no_request(whole_stack):
    """What we held of it is given back; Envoy by itself would send an empty body."""
    whole_stack.reset()
    whole_stack.routers.bug = RuntimeError("a bug of ours")
    status, answer = await whole_stack.post(chat())
    assert (status, answer) in [(200, engine.stream()) for engine in whole_stack.engines]
    assert whole_stack.listener.count("failed", "internal") == 1, whole_stack.listener.heard
