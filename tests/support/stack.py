"""Client, Envoy, server and engines, wired up: what an end-to-end test drives and looks at."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from envoy_process import ENVOY_BINARY, EnvoyProcess, envoy_config
from extproc_fakes import FakeRouters, RecordingListener
from lodestar_extproc.completion import Completion
from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.extproc.server import ExtProcServer
from lodestar_extproc.server_tls import ServerTls
from lodestar_extproc.transport.calls import CallTransport
from stub_engine import StubEngine
from transports import a_transport
from waiting import until

CHAT = "/v1/chat/completions"
DEFAULT_SETTINGS = PoolSettings()


def chat(*, stream: bool = True, text: str = "hi") -> bytes:
    message = {"role": "user", "content": text}
    return json.dumps({"model": "m", "messages": [message], "stream": stream}).encode()


@dataclass
class Stack:
    """One Envoy between a client and two engines; *routers* choose what a test tells them to."""

    envoy: EnvoyProcess
    server: ExtProcServer
    routers: FakeRouters
    listener: RecordingListener
    engines: tuple[StubEngine, ...]
    client: aiohttp.ClientSession
    settings: PoolSettings = DEFAULT_SETTINGS

    def reset(self) -> None:
        """As if just started, for the next test."""
        addresses = tuple(engine.address for engine in self.engines)
        fresh = FakeRouters(addresses=addresses, pools=("engines",), settings=self.settings)
        # Ids stay unique, so that late news of an earlier test is not taken for this one's.
        fresh.n_decisions = self.routers.n_decisions
        vars(self.routers).update(vars(fresh))
        self.listener.heard.clear()
        for engine in self.engines:
            vars(engine).update(
                vars(StubEngine(engine.name, engine.port)) | {"_runner": engine._runner}
            )

    def prefer(self, *engines: StubEngine) -> None:
        self.routers.addresses = tuple(engine.address for engine in engines)

    async def post(self, body: bytes, path: str = CHAT, **headers: str) -> tuple[int, bytes]:
        given = {"content-type": "application/json"} | headers
        url = self.envoy.url + path
        async with self.client.post(url, data=io.BytesIO(body), headers=given) as response:
            return response.status, await response.read()

    async def completion(self, decision_id: str) -> Completion:
        """How the answer to that decision ended, once that is known."""
        return await until(
            lambda: next(
                (c for c in self.routers.completions if c.decision_id == decision_id), None
            )
        )


@asynccontextmanager
async def running_stack(
    folder: Path,
    file: str = "envoy.yaml",
    *,
    access_log: bool = True,
    edit: Callable[[dict[str, Any]], None] | None = None,
    settings: PoolSettings = DEFAULT_SETTINGS,
    binary: Path = ENVOY_BINARY,
    tls: ServerTls | None = None,
    transport: CallTransport | None = None,
) -> AsyncIterator[Stack]:
    """A stack on the shipped configuration *file*; *tls* encrypts the way to the server."""
    engines = (StubEngine("a"), StubEngine("b"))
    routers = FakeRouters()
    listener = RecordingListener()
    server = ExtProcServer(
        routers, listener, access_log=access_log, transport=transport or a_transport()
    )
    (port,) = await server.start(["127.0.0.1:0"], tls=tls)
    try:
        for engine in engines:
            await engine.start()
        addresses = [engine.address for engine in engines]
        config = envoy_config(file, extproc_port=port, engines=addresses, edit=edit)
        async with (
            EnvoyProcess(config, folder, binary=binary) as envoy,
            aiohttp.ClientSession() as client,
        ):
            stack = Stack(envoy, server, routers, listener, engines, client, settings)
            stack.reset()
            yield stack
    finally:
        await server.stop(0.0)
        for engine in engines:
            await engine.stop()
