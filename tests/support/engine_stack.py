"""Client, a real Envoy by the shipped file, a real router and engines of a test's own."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
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
from transports import a_transport
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
    routers: Routers
    recorder: Recorder
    client: aiohttp.ClientSession

    @property
    def router(self) -> Router:
        return self.routers.get("engines")

    def reset(self) -> None:
        """As if just started, for the next test."""
        self.recorder = Recorder()
        endpoints = self.router.fleet.endpoints
        self.routers.__init__(
            [_a_router(self.router.settings, endpoints, self.recorder)], policy_for_route
        )

    async def ask(
        self, path: str, body: bytes | None = None, method: str | None = None, **headers: str
    ) -> tuple[int, bytes]:
        """A POST of *body*; without one a GET."""
        method = method or ("GET" if body is None else "POST")
        headers = {"content-type": "application/json"} | headers
        url, data = self.envoy.url + path, None if body is None else io.BytesIO(body)
        async with self.client.request(method, url, data=data, headers=headers) as response:
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


def _a_router(pool: PoolSettings, endpoints: Iterable[Endpoint], recorder: Recorder) -> Router:
    return new_router("engines", pool, endpoints, listeners=[recorder])


@asynccontextmanager
async def engine_stack(
    folder: Path,
    engines: Sequence[SomeEngine],
    *,
    file: str = "envoy.yaml",
    edit: Callable[[dict[str, Any]], None] = patient,
    traces: Any = None,
    **settings: Any,
) -> AsyncIterator[EngineStack]:
    """Start them all, and end them with the body."""
    for engine in engines:
        await engine.start()
    addresses = [engine.address for engine in engines]
    recorder = Recorder()
    pool = PoolSettings(**{"seed": 0, "policy": "round_robin"} | settings)
    router = _a_router(pool, map(Endpoint, addresses), recorder)
    if traces is not None:
        router.listeners.add(traces)
    routers = Routers([router], policy_for_route)
    server = ExtProcServer(routers, RecordingListener(), traces=traces, transport=a_transport())
    (port,) = await server.start(["127.0.0.1:0"])
    try:
        config = envoy_config(file, extproc_port=port, engines=addresses, edit=edit)
        # Answers are looked at as they come, compressed or not.
        session = aiohttp.ClientSession(auto_decompress=False)
        async with EnvoyProcess(config, folder) as envoy, session as client:
            yield EngineStack(envoy, routers, recorder, client)
    finally:
        await server.stop(0.0)
        for engine in engines:
            await engine.stop()
