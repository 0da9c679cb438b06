"""Client, a real Envoy by the shipped file, a real router and engines of a test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from builders import Recorder
from envoy_process import EnvoyProcess, envoy_config, patient
from extproc_fakes import RecordingListener
from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.decision import Decision
from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.extproc.server import ExtProcServer
from lodestar_extproc.routing.assembly import new_router, policy_for_route
from lodestar_extproc.routing.router import Router
from lodestar_extproc.routing.routers import Routers
from waiting import until


class SomeEngine(Protocol):
    @property
    def address(self) -> str: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


@dataclass
class EngineStack:
    """What a test asks and looks at."""

    envoy: EnvoyProcess
    router: Router
    recorder: Recorder
    client: aiohttp.ClientSession

    async def ask(
        self, path: str, body: bytes | None = None, method: str | None = None, **headers: str
    ) -> tuple[int, bytes]:
        """A POST of *body*; without one a GET."""
        method = method or ("GET" if body is None else "POST")
        headers = {"content-type": "application/json"} | headers
        url = self.envoy.url + path
        async with self.client.request(method, url, data=body, headers=headers) as response:
            return response.status, await response.read()

    async def decided(self, path: str, body: bytes, **headers: str) -> Decision:
        """Ask, and wait until the answer has ended; what was decided."""
        n = len(self.recorder.ended_requests)
        await self.ask(path, body, **headers)
        await until(lambda: len(self.recorder.ended_requests) > n)
        return self.recorder.decisions[-1]

    @property
    def in_flight(self) -> float:
        """Requests that count as load, of all endpoints."""
        snapshot = self.router.fleet.everything(0.0)
        return float((snapshot.prefill_requests + snapshot.decode_requests).sum())


@asynccontextmanager
async def engine_stack(
    folder: Path,
    engines: Sequence[SomeEngine],
    *,
    file: str = "envoy.yaml",
    edit: Callable[[dict[str, Any]], None] = patient,
    **settings: Any,
) -> AsyncIterator[EngineStack]:
    """Start them all, and end them with the body."""
    for engine in engines:
        await engine.start()
    addresses = [engine.address for engine in engines]
    recorder = Recorder()
    pool = PoolSettings(**{"seed": 0, "policy": "round_robin"} | settings)
    router = new_router("engines", pool, map(Endpoint, addresses), listeners=[recorder])
    server = ExtProcServer(Routers([router], policy_for_route), RecordingListener())
    (port,) = await server.start(["127.0.0.1:0"])
    try:
        config = envoy_config(file, extproc_port=port, engines=addresses, edit=edit)
        async with EnvoyProcess(config, folder) as envoy, aiohttp.ClientSession() as client:
            yield EngineStack(envoy, router, recorder, client)
    finally:
        await server.stop(0.0)
        for engine in engines:
            await engine.stop()
