"""A real Envoy set up as Istio's ingress gateway, with our EnvoyFilter: one route asks us, by TLS."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from envoy_process import ENVOY_BINARY, EnvoyProcess, cluster_of
from extproc_fakes import FakeRouters, RecordingListener
from istio_gateway import ENGINES, gateway_config, patched
from kustomization import documents
from lodestar_extproc.completion import Outcome
from lodestar_extproc.extproc.server import ExtProcServer
from lodestar_extproc.server_tls import ServerTls
from stack import CHAT, Stack, chat
from stub_engine import StubEngine
from transports import a_transport
from waiting import until

FOLDER = Path(__file__).parents[2] / "envoy" / "istio" / "envoy-filter"
(ENVOY_FILTER,) = documents(FOLDER / "envoy-filter.yaml")


@asynccontextmanager
async def running_gateway(folder):
    engines = (StubEngine("a"), StubEngine("b"))
    routers, listener = FakeRouters(), RecordingListener()
    server = ExtProcServer(routers, listener, access_log=True, transport=a_transport())
    (port,) = await server.start(["127.0.0.1:0"], tls=ServerTls())
    try:
        for engine in engines:
            await engine.start()
        config = patched(gateway_config([engine.address for engine in engines]), ENVOY_FILTER)
        socket = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
        assignment = cluster_of(config, "lodestar")["load_assignment"]
        assignment["endpoints"] = [{"lb_endpoints": [{"endpoint": {"address": socket}}]}]
        for place in (config["admin"], config["static_resources"]["listeners"][0]):
            place["address"]["socket_address"]["port_value"] = 0
        async with EnvoyProcess(config, folder) as envoy, aiohttp.ClientSession() as client:
            stack = Stack(envoy, server, routers, listener, engines, client)
            stack.reset()
            yield stack
    finally:
        await server.stop(0.0)
        for engine in engines:
            await engine.stop()


def test_envoy_accepts_the_whole_configuration(tmp_path):
    config = patched(gateway_config(["127.0.0.1:8000"]), ENVOY_FILTER)
    path = tmp_path / "gateway.json"
    path.write_text(json.dumps(config))

    done = subprocess.run(
        [ENVOY_BINARY, "--mode", "validate", "--config-path", path, "--log-level", "warning"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={"PATH": os.defpath},
    )

    assert done.returncode == 0, done.stderr
    assert "Deprecated" not in done.stderr


@pytest.fixture(scope="module")
def gateway_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("gateway")


async def test_only_the_named_route_asks_and_its_answers_are_timed(gateway_folder):
    async with running_gateway(gateway_folder) as stack:
        first, second = stack.engines
        for chosen in (second, first, second):
            stack.prefer(chosen, first if chosen is second else second)
            before = len(chosen.seen)
            status, body = await stack.post(chat())
            assert (status, body) == (200, chosen.stream())
            assert len(chosen.seen) == before + 1
            done = await stack.completion(stack.routers.last_id)
            assert (done.outcome, done.served) == (Outcome.SERVED, chosen.address)
            assert done.ttft_s is not None
        await until(lambda: len(stack.routers.first_tokens) == 3)
        assert {event.served for event in stack.routers.first_tokens} == {
            first.address,
            second.address,
        }

        asked = stack.routers.n_decisions
        assert (await stack.post(chat(), "/other"))[0] == 200
        await asyncio.sleep(0.3)
        assert stack.routers.n_decisions == asked
        # What nobody chose for is not logged to us either.
        assert len([heard for heard in stack.listener.heard if heard[0] == "log"]) == 3


async def test_large_prompt_passes_and_a_failing_engine_is_retried_on_the_next(tmp_path):
    async with running_gateway(tmp_path) as stack:
        first, second = stack.engines
        stack.prefer(first, second)
        first.status = 503
        status, body = await stack.post(chat(text="x" * 4_000_000))

        assert (status, body) == (200, second.stream())
        done = await stack.completion(stack.routers.last_id)
        assert (done.served, done.attempts) == (second.address, 2)


async def test_without_lodestar_requests_go_on(tmp_path):
    async with running_gateway(tmp_path) as stack:
        await stack.server.stop(0.0)

        for _ in range(3):
            assert (await stack.post(chat(), CHAT))[0] == 200
        stats = await stack.envoy.stats(f"cluster.{ENGINES}.upstream_rq_2xx".replace("|", "[|]"))
        assert sum(stats.values()) == 3
