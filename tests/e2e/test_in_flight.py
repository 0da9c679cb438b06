"""Real routers on simulated engines: whatever happens, what was taken is given back."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import aiohttp
import pytest
from envoy_process import EnvoyProcess, cluster_of, envoy_config
from stack import CHAT, until

from edge_fakes import RecordingListener
from lodestar_extproc.assembly import new_router, policy_for_route
from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.extproc.server import EdgeServer
from lodestar_extproc.router import Router
from lodestar_extproc.routers import Routers
from lodestar_extproc.simulator.accelerators import ACCELERATORS
from lodestar_extproc.simulator.api import DEFAULT_MODEL
from lodestar_extproc.simulator.server import SimulatedServer

N_REQUESTS = 40
FULL_DUPLEX = "variants/full_duplex.yaml"


@dataclass
class SimulatedStack:
    envoy: EnvoyProcess
    router: Router
    listener: RecordingListener
    engines: list[SimulatedServer]
    client: aiohttp.ClientSession

    async def ask(self, *, stream: bool = True, max_tokens: int = 8) -> bytes:
        body = {
            "model": DEFAULT_MODEL,
            "messages": [{"role": "user", "content": "word " * 100}],
            "stream": stream,
            "stream_options": {"include_usage": True} if stream else None,
            "max_tokens": max_tokens,
        }
        async with self.client.post(self.envoy.url + CHAT, json=body) as response:
            return await response.read()

    async def break_engine(self, index: int, **fault) -> None:
        url = f"http://{self.engines[index].address}/fault"
        async with self.client.post(url, data=json.dumps(fault)) as response:
            assert response.status == 200


@asynccontextmanager
async def simulated_stack(folder, file: str = "envoy.yaml", *, edit=None, **settings):
    engines = [SimulatedServer(ACCELERATORS["h100"], speed=20.0, seed=i) for i in range(2)]
    for engine in engines:
        await engine.start()
    addresses = [engine.address for engine in engines]
    pool_settings = PoolSettings(**{"policy": "round_robin", "seed": 0} | settings)
    router = new_router("engines", pool_settings, [Endpoint(address) for address in addresses])
    listener = RecordingListener()
    access_log = file != FULL_DUPLEX
    edge = EdgeServer(Routers([router], policy_for_route), listener, access_log=access_log)
    (port,) = await edge.start(["127.0.0.1:0"])
    try:
        config = envoy_config(file, edge_port=port, engines=addresses, edit=edit)
        async with EnvoyProcess(config, folder) as envoy, aiohttp.ClientSession() as client:
            yield SimulatedStack(envoy, router, listener, engines, client)
    finally:
        await edge.stop(0.0)
        for engine in engines:
            await engine.stop()


FAULTS = {
    "none": {"kind": "none"},
    "busy": {"kind": "503"},
    "reset": {"kind": "reset"},
    "cut mid-stream": {"kind": "drop_mid_stream", "after_tokens": 2},
    "error event": {"kind": "error_event", "after_tokens": 2},
    "error before any token": {"kind": "error_event", "after_tokens": 0},
    "frozen": {"kind": "freeze"},
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("file", ["envoy.yaml", "variants/streamed.yaml", FULL_DUPLEX])
async def test_nothing_stays_in_flight(tmp_path, file, fault):
    rng = random.Random(1)
    async with simulated_stack(tmp_path, file) as stack:
        await stack.break_engine(0, **FAULTS[fault])

        async def is_served(number: int) -> bool:
            # A third of the clients leave; of a frozen engine, all who wait for it.
            patience_s = rng.uniform(0.0, 0.3) if number % 3 == 0 or fault == "frozen" else 10.0
            with suppress(TimeoutError, aiohttp.ClientError):
                answer = await asyncio.wait_for(stack.ask(stream=number % 4 != 0), patience_s)
                return b'"choices"' in answer
            return False

        served = await asyncio.gather(*map(is_served, range(N_REQUESTS)))
        assert any(served)
        await until(lambda: stack.router.n_open == 0)
        assert stack.router.fleet.n_in_flight == 0
        snapshot = stack.router.fleet.everything(0.0)
        assert snapshot.in_flight.sum() == 0
        assert snapshot.prefill_uncached_tokens.sum() == 0
        assert snapshot.decode_context_tokens.sum() == 0
        assert {"protocol", "internal"}.isdisjoint(what[-1] for what in stack.listener.heard)


async def test_first_tokens_end_prefills_while_answers_go_on(tmp_path):
    async with simulated_stack(tmp_path) as stack:
        answers = [asyncio.create_task(stack.ask(max_tokens=400)) for _ in range(8)]
        await until(lambda: stack.router.fleet.everything(0.0).decode_requests.sum() == 8)
        assert not any(answer.done() for answer in answers)
        for answer in answers:
            assert (await answer).endswith(b"data: [DONE]\n\n")
        await until(lambda: stack.router.n_open == 0)


async def test_the_usage_of_watched_answers_teaches_bytes_per_token(tmp_path):
    async with simulated_stack(tmp_path, observed_ratio=1.0, bytes_per_token=1.0) as stack:
        for _ in range(20):
            await stack.ask()
        await until(lambda: stack.router.n_open == 0)
        assert stack.router.bytes_per_token(DEFAULT_MODEL) > 2.0


def never_bypassed(config) -> None:
    """On a busy machine health checks come late, and Envoy goes on without us."""
    del cluster_of(config, "lodestar")["health_checks"]


async def test_as_a_mesh_asks_a_load_passes_without_a_failure_and_teaches(tmp_path):
    """Open-loop arrivals, a fifth of them in one piece, through full duplex both ways."""
    rng, n_requests = random.Random(2), 300
    async with simulated_stack(
        tmp_path, FULL_DUPLEX, edit=never_bypassed, policy="learned"
    ) as stack:
        asked = []
        for number in range(n_requests):
            request = stack.ask(stream=number % 5 != 0, max_tokens=rng.randrange(1, 60))
            asked.append(asyncio.create_task(request))
            await asyncio.sleep(rng.expovariate(100.0))
        answers = await asyncio.gather(*asked)
        for number, answer in enumerate(answers):
            if number % 5:
                assert answer.endswith(b"data: [DONE]\n\n")
            else:
                assert json.loads(answer)["choices"]
        await until(lambda: stack.router.n_open == 0)
        assert stack.router.fleet.n_in_flight == 0
        assert stack.router.learner.status().n_samples == n_requests * 4 // 5
        await until(lambda: stack.listener.count("closed", "chosen") == n_requests)
