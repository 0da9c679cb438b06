"""Client, Envoy, the whole service and simulated engines behind TLS, by one configuration file."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from certificates import Authority, Signed
from envoy_process import EnvoyProcess, cluster_of, envoy_config, patient
from lodestar_extproc.config import read_envoy_config
from lodestar_extproc.service.app import App
from lodestar_extproc.service.options import ServeOptions
from lodestar_extproc.simulator.accelerators import ACCELERATORS
from lodestar_extproc.simulator.defaults import DEFAULT_MODEL
from lodestar_extproc.simulator.server import SERVED_BY_HEADER, SimulatedServer
from ports import a_port

TLS_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"


class HealthElsewhere(SimulatedServer):
    """An engine whose health is not where most engines have it."""

    def _application(self) -> web.Application:
        app = super()._application()
        app.router.add_get("/v2/health/ready", self._health)
        return app

    async def _health(self, request: web.Request) -> web.Response:
        if request.path == "/health":
            return web.Response(status=404)
        return await super()._health(request)


@dataclass
class TlsStack:
    """What a test looks at."""

    app: App
    envoy: EnvoyProcess
    admin: str
    client: aiohttp.ClientSession

    async def ask(self, n: int = 10) -> list[tuple[int, str]]:
        """Status and server of *n* answers."""
        answers = []
        for i in range(n):
            body = {"model": DEFAULT_MODEL, "prompt": f"{i} " * 50, "max_tokens": 2}
            async with self.client.post(f"{self.envoy.url}/v1/completions", json=body) as answer:
                await answer.read()
                answers.append((answer.status, answer.headers.get(SERVED_BY_HEADER, "")))
        return answers

    async def endpoints(self) -> list[dict[str, Any]]:
        async with self.client.get(f"{self.admin}/endpoints") as answer:
            return json.loads(await answer.read())["pools"][0]["endpoints"]


def transport_socket(authority: Authority, own: Signed | None = None, **more: Any) -> dict:
    """A cluster's, that trusts *authority* and shows *own*."""
    common: dict[str, Any] = {
        "validation_context": {"trusted_ca": {"filename": str(authority.certificate)}}
    }
    if own is not None:
        common["tls_certificates"] = [
            {
                "certificate_chain": {"filename": str(own.certificate)},
                "private_key": {"filename": str(own.key)},
            }
        ]
    context = {"@type": TLS_TYPE, "common_tls_context": common} | more
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


@asynccontextmanager
async def tls_stack(
    folder: Path,
    shown: Signed,
    edit: Callable[[dict[str, Any]], None],
    *,
    client_ca: Path | None = None,
    **settings: object,
) -> AsyncIterator[TlsStack]:
    """Two engines that show *shown*; *edit* changes the cluster `engines`."""
    async with AsyncExitStack() as stack:
        engines = [HealthElsewhere(ACCELERATORS["h100"], speed=20.0, seed=i) for i in range(2)]
        for engine in engines:
            await engine.start(tls=shown.server_context(client_ca))
            stack.push_async_callback(engine.stop)

        def edited(config: dict[str, Any]) -> None:
            patient(config)
            cluster = cluster_of(config, "engines")
            own = {"policy": "round_robin", "health_interval_s": 0.1} | settings
            cluster["metadata"]["filter_metadata"]["lodestar"] = own
            edit(cluster)

        port, admin = a_port(), f"127.0.0.1:{a_port()}"
        config = envoy_config(
            "envoy.yaml",
            extproc_port=port,
            engines=[engine.address for engine in engines],
            edit=edited,
        )
        envoy = EnvoyProcess(config, folder)
        options = ServeOptions(listen=(f"127.0.0.1:{port}",), admin=admin, drain_s=0.0, grace_s=0.1)
        app = App(read_envoy_config(envoy.config_file), options)
        running = asyncio.create_task(app.run())

        async def stop() -> None:
            app.stop()
            await running

        stack.push_async_callback(stop)
        await stack.enter_async_context(envoy)
        client = await stack.enter_async_context(aiohttp.ClientSession())
        yield TlsStack(app, envoy, f"http://{admin}", client)
