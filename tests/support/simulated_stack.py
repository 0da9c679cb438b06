"""Client, Envoy, real routers and simulated engines, in one process but for Envoy."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from envoy_process import EnvoyProcess, envoy_config
from extproc_fakes import RecordingListener
from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.extproc.server import ExtProcServer
from lodestar_extproc.routing.assembly import new_router, policy_for_route
from lodestar_extproc.routing.router import Router
from lodestar_extproc.routing.routers import Routers
from lodestar_extproc.simulator.accelerators import ACCELERATORS
from lodestar_extproc.simulator.defaults import DEFAULT_MODEL
from lodestar_extproc.simulator.server import SimulatedServer
from stack import CHAT
from transports import a_transport

FULL_DUPLEX = "variants/full_duplex.yaml"


@dataclass
class SimulatedStack:
    envoy: EnvoyProcess
    router: Router
    listener: RecordingListener
    engines: list[SimulatedServer]
    client: aiohttp.ClientSession

    async def ask(self, *, url: str = "", stream: bool = True, max_tokens: int = 8) -> bytes:
        body = {
            "model": DEFAULT_MODEL,
            "messages": [{"role": "user", "content": "word " * 100}],
            "stream": stream,
            "stream_options": {"include_usage": True} if stream else None,
            "max_tokens": max_tokens,
        }
        async with self.client.post((url or self.envoy.url) + CHAT, json=body) as response:
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
    server = ExtProcServer(
        Routers([router], policy_for_route),
        listener,
        access_log=access_log,
        transport=a_transport(),
    )
    (port,) = await server.start(["127.0.0.1:0"])
    try:
        config = envoy_config(file, extproc_port=port, engines=addresses, edit=edit)
        async with EnvoyProcess(config, folder) as envoy, aiohttp.ClientSession() as client:
            stack = SimulatedStack(envoy, router, listener, engines, client)
            # The first request on a machine compiles the engine, which takes many seconds.
            await stack.ask(url=f"http://{engines[0].address}", max_tokens=1)
            yield stack
    finally:
        await server.stop(0.0)
        for engine in engines:
            await engine.stop()
