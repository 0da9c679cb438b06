"""Envoy, the real service and engines, each a process of its own, so that each can die or freeze."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from child_process import ChildProcess
from envoy_process import ENVOY_BINARY, EnvoyProcess, cluster_of, envoy_config
from ports import a_port
from transports import transport_name
from waiting import until

ECHO_ENGINE = Path(__file__).with_name("echo_engine.py")
READY_TIMEOUT_S = 120.0
"""Imports take seconds on a busy machine."""
REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=60)


async def get(url: str) -> str:
    """What *url* answers."""
    session = aiohttp.ClientSession(timeout=REQUEST_TIMEOUT)
    async with session, session.get(url) as response:
        return await response.text()


class HttpProcess(ChildProcess):
    """A process that says over HTTP when it is ready."""

    def __init__(self, name: str, command: list[str], folder: Path, ready_url: str) -> None:
        super().__init__(name, command, folder)
        self._ready_url = ready_url

    async def ready(self) -> None:
        async with aiohttp.ClientSession(timeout=REQUEST_TIMEOUT) as session:
            await until(lambda: self._answers(session), READY_TIMEOUT_S)

    async def _answers(self, session: aiohttp.ClientSession) -> bool:
        self.check_alive()
        try:
            async with session.get(self._ready_url) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False


class Engine(HttpProcess):
    """One `echo_engine.py`."""

    def __init__(self, name: str, folder: Path) -> None:
        port = a_port()
        self.address = f"127.0.0.1:{port}"
        command = [sys.executable, str(ECHO_ENGINE), str(port)]
        super().__init__(name, command, folder, f"http://{self.address}/health")

    async def break_down(self, fault: str) -> None:
        url = f"http://{self.address}/fault"
        async with aiohttp.ClientSession() as session, session.post(url, data=fault) as response:
            assert response.status == 200

    async def tried_at_s(self) -> list[float]:
        return json.loads(await get(f"http://{self.address}/tried"))


class ServicePort:
    """What the operators' port at *url* says."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def pool(self) -> dict[str, Any]:
        """What it says of its only pool."""
        (pool,) = json.loads(await get(f"{self.url}/endpoints"))["pools"]
        return pool

    async def state_of(self, engine: Engine) -> str:
        endpoints = (await self.pool())["endpoints"]
        return next(e["state"] for e in endpoints if e["address"] == engine.address)

    async def metric(self, name: str) -> float:
        """The sum over all labels."""
        lines = (await get(f"{self.url}/metrics")).splitlines()
        of_name = (line for line in lines if line.startswith((f"{name} ", f"{name}{{")))
        return sum(float(line.rpartition(" ")[2]) for line in of_name)


class Service(HttpProcess, ServicePort):
    """`lodestar-extproc serve`."""

    def __init__(self, config_file: Path, folder: Path, admin_port: int, *options: str) -> None:
        self.url = f"http://127.0.0.1:{admin_port}"
        self.config_file = config_file
        command = [
            *(sys.executable, "-m", "lodestar_extproc", "serve"),
            *("--envoy-config", str(config_file)),
            *("--admin", f"127.0.0.1:{admin_port}"),
            *("--transport", transport_name()),
            *options,
        ]
        super().__init__("service", command, folder, f"{self.url}/ready")

    @property
    def grpc_port(self) -> int:
        """Where Envoy finds it, as the configuration says."""
        ours = cluster_of(json.loads(self.config_file.read_text()), "lodestar")
        (endpoint,) = ours["load_assignment"]["endpoints"][0]["lb_endpoints"]
        return int(endpoint["endpoint"]["address"]["socket_address"]["port_value"])


@dataclass
class ProcessStack:
    """What a test breaks, and looks at."""

    envoy: EnvoyProcess
    service: Service
    engines: list[Engine]

    async def ext_proc(self, name: str) -> int:
        """A counter of Envoy's ext_proc filters."""
        return (await self.envoy.stats(rf"^http.openai.ext_proc.{name}$")).popitem()[1]

    async def service_is_healthy(self) -> bool:
        """As Envoy sees it."""
        return await self.envoy_counts("membership_healthy", cluster="lodestar") == 1

    async def envoy_counts(self, name: str, *, cluster: str = "engines") -> int:
        return (await self.envoy.stats(rf"^cluster.{cluster}.{name}$")).popitem()[1]

    async def nothing_is_open(self) -> bool:
        """All that was taken has been given back."""
        pool = await self.service.pool()
        taken = ("prefill_requests", "prefill_tokens", "decode_requests", "context_tokens")
        left = sum(endpoint[name] for endpoint in pool["endpoints"] for name in taken)
        return pool["open_decisions"] == 0 and left == 0


@asynccontextmanager
async def running_processes(
    folder: Path,
    file: str = "envoy.yaml",
    *,
    binary: Path = ENVOY_BINARY,
    n_engines: int = 3,
    edit: Callable[[dict[str, Any]], None] = lambda _: None,
    **settings: Any,
) -> AsyncIterator[ProcessStack]:
    """All processes on the shipped configuration *file*, with pool *settings* changed."""
    extproc_port, admin_port = a_port(), a_port()
    async with AsyncExitStack() as stack:
        engines = [Engine(f"engine{i}", folder) for i in range(n_engines)]

        def edit_all(config: dict[str, Any]) -> None:
            edit(config)
            block = cluster_of(config, "engines")["metadata"]["filter_metadata"]["lodestar"]
            block |= settings

        addresses = [engine.address for engine in engines]
        config = envoy_config(file, extproc_port=extproc_port, engines=addresses, edit=edit_all)
        envoy = EnvoyProcess(config, folder, binary=binary)
        service = Service(envoy.config_file, folder, admin_port)
        for process in (*engines, service):
            stack.enter_context(process)
        for process in (*engines, service):
            await process.ready()
        await stack.enter_async_context(envoy)
        await until(lambda: envoy.asks("lodestar"))
        yield ProcessStack(envoy, service, engines)
