"""Client, Envoy, a real router and scripted engines: how many users a bad engine gets."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from envoy_process import EnvoyProcess, envoy_config, patient
from extproc_fakes import RecordingListener
from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.extproc.server import ExtProcServer
from lodestar_extproc.fleet.health_state import HealthState
from lodestar_extproc.routing.assembly import new_router, policy_for_route
from lodestar_extproc.routing.router import Router
from lodestar_extproc.routing.routers import Routers
from process_stack import a_port
from scripted_engine import Script, ScriptedEngine, good
from stack import CHAT
from transports import a_transport

N_CONVERSATIONS = 12
FROZEN_AFTER_S, PATIENCE_S = 1.0, 1.5
"""Of the pool, and of a client: it leaves an answer that hangs."""


@dataclass
class BlackHoleStack:
    """Three engines, of which the first answers by what a test sets."""

    envoy: EnvoyProcess
    router: Router
    engines: list[ScriptedEngine]
    client: aiohttp.ClientSession
    rng: random.Random

    @property
    def bad(self) -> ScriptedEngine:
        return self.engines[0]

    def state(self, at_s: float) -> HealthState:
        return self.router.fleet.health.state(self.bad.address, at_s)

    async def ask_until_out(self, clock: Callable[[], float]) -> bool:
        """Ask once; whether the bad engine has been taken out."""
        await self.run(1, interval_s=0.02)
        return self.state(clock()) is not HealthState.HEALTHY

    async def warm(self, n: int) -> None:
        """Requests while all is well."""
        script, self.bad.script = self.bad.script, good()
        await self.run(n)
        self.bad.script = script

    async def run(self, n: int, interval_s: float = 0.05, patience_s: float = PATIENCE_S) -> float:
        """Send *n* requests; the share that the bad engine was asked."""
        before = [engine.n_asked for engine in self.engines]
        tasks = []
        for _ in range(n):
            tasks.append(asyncio.create_task(self._ask(patience_s)))
            await asyncio.sleep(self.rng.expovariate(1 / interval_s))
        await asyncio.gather(*tasks)
        asked = [e.n_asked - b for e, b in zip(self.engines, before, strict=True)]
        return asked[0] / max(1, sum(asked))

    async def _ask(self, patience_s: float) -> None:
        conversation = random.Random(self.rng.randrange(N_CONVERSATIONS))
        words = [f"w{conversation.randrange(10**6)}" for _ in range(100 + self.rng.randrange(100))]
        message = {"role": "user", "content": " ".join(words)}
        body = json.dumps({"model": "m", "stream": True, "messages": [message]})
        timeout = aiohttp.ClientTimeout(total=patience_s)
        try:
            async with self.client.post(
                self.envoy.url + CHAT,
                data=body,
                headers={"content-type": "application/json"},
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                await response.read()
        except (aiohttp.ClientError, TimeoutError):
            pass  # what a user of the bad engine sees


@asynccontextmanager
async def black_hole_stack(
    folder: Path, script: Script, *, decides: bool = True, **settings
) -> AsyncIterator[BlackHoleStack]:
    """A stack; without *decides* the service is not there, and Envoy's least_request chooses."""
    engines = [ScriptedEngine(script), ScriptedEngine(good()), ScriptedEngine(good())]
    for engine in engines:
        await engine.start()
    addresses = [engine.address for engine in engines]
    pool = PoolSettings(**{"seed": 0, "frozen_after_s": FROZEN_AFTER_S} | settings)
    router = new_router("engines", pool, [Endpoint(address) for address in addresses])
    server = ExtProcServer(
        Routers([router], policy_for_route), RecordingListener(), transport=a_transport()
    )
    (port,) = await server.start(["127.0.0.1:0"])
    try:
        config = envoy_config(
            "envoy.yaml",
            extproc_port=port if decides else a_port(),
            engines=addresses,
            edit=patient if decides else None,
        )
        async with EnvoyProcess(config, folder) as envoy, aiohttp.ClientSession() as client:
            yield BlackHoleStack(envoy, router, engines, client, random.Random(1))
    finally:
        await server.stop(0.0)
        for engine in engines:
            await engine.stop()
