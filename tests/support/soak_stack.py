"""Envoy with the shipped file, the service, and engines that come and go by a file of endpoints."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from envoy_process import EnvoyProcess, cluster_of, envoy_config
from ports import a_port
from process_children import children_of
from process_stack import REQUEST_TIMEOUT, HttpProcess, ProcessStack, Service, get
from waiting import until

N_ENGINES = 6
POOL_THREADS = ("asyncio_", "uvloop_", "AnyIO worker thread")
"""Those that wait for files: they are begun when first needed, a few at most, and stay."""
LEAVES_AFTER_S = 2.0
"""From an engine's leaving the file to its failing health checks, as a pod that is ended."""
ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"


class SoakService(Service):
    """The service, which also tells what tasks and objects it holds."""

    def __init__(self, config_file: Path, folder: Path, admin_port: int) -> None:
        super().__init__(config_file, folder, admin_port)
        self._held_file = folder / "held.json"
        command = list(self.command)
        runner = str(Path(__file__).with_name("soak_service.py"))
        at = command.index("-m")
        command[at : at + 2] = [runner, str(self._held_file)]
        self.command = command

    async def page(self) -> str:
        return await get(f"{self.url}/metrics")

    async def metric_by_label(self, name: str, label: str) -> dict[str, float]:
        """The values of metric *name*, summed by *label*."""
        found: dict[str, float] = {}
        for line in (await self.page()).splitlines():
            if line.startswith(f"{name}{{"):
                value = line.partition(f'{label}="')[2].partition('"')[0]
                found[value] = found.get(value, 0.0) + float(line.rpartition(" ")[2])
        return found

    async def held(self) -> dict[str, dict[str, int]]:
        self._held_file.unlink(missing_ok=True)
        os.kill(self.pid, signal.SIGUSR2)
        await until(self._held_file.exists)
        return json.loads(self._held_file.read_text())


class SoakEngines(HttpProcess):
    """One process that is every engine there will be."""

    def __init__(self, folder: Path) -> None:
        self.port = a_port()
        command = [sys.executable, str(Path(__file__).with_name("soak_engine.py")), str(self.port)]
        super().__init__("engines", command, folder, f"http://127.0.0.1:{self.port}/health")

    def address(self, number: int) -> str:
        """Of the engine *number*: no two have one."""
        return (
            f"127.{1 + number // 62_500}.{1 + number // 250 % 250}.{1 + number % 250}:{self.port}"
        )


class ComingEndpoints:
    """The file of endpoints: which engines there are."""

    def __init__(self, file: Path, engines: SoakEngines) -> None:
        self._file = file
        self._engines = engines
        self.n_joined = N_ENGINES
        self._here = deque(engines.address(i) for i in range(N_ENGINES))
        self._write()

    async def churn(self, interval_s: float) -> None:
        """Every *interval_s* the oldest engine leaves, and one that nobody knew joins."""
        while True:
            await asyncio.sleep(interval_s)
            left = self._here.popleft()
            self._here.append(self._engines.address(self.n_joined))
            self.n_joined += 1
            self._write()
            await asyncio.sleep(LEAVES_AFTER_S)
            async with aiohttp.ClientSession(timeout=REQUEST_TIMEOUT) as session:
                await session.post(f"http://{left}/leave")

    def _write(self) -> None:
        hosts = (address.rpartition(":") for address in self._here)
        sockets = [{"address": host, "port_value": int(port)} for host, _, port in hosts]
        endpoints = [{"endpoint": {"address": {"socket_address": each}}} for each in sockets]
        assignment = {"cluster_name": "engines", "endpoints": [{"lb_endpoints": endpoints}]}
        document = {"resources": [{"@type": ENDPOINTS, **assignment}]}
        half = self._file.with_name("half")
        half.write_text(json.dumps(document))
        half.replace(self._file)


@dataclass
class SoakStack(ProcessStack):
    """What is loaded, and looked at."""

    service: SoakService
    endpoints: ComingEndpoints
    engine_process: SoakEngines

    async def what_is_open(self) -> dict[str, float]:
        """All that has to be again, once it is quiet, what it was before."""
        pid = self.service.pid
        held = await self.service.held()
        threads = {k: n for k, n in held["threads"].items() if k not in POOL_THREADS}
        descriptors = _descriptors(pid)
        pool = await self.service.pool()
        taken = ("prefill_requests", "prefill_tokens", "decode_requests", "context_tokens")
        in_flight = sum(endpoint[name] for endpoint in pool["endpoints"] for name in taken)
        return {
            "open decisions": pool["open_decisions"],
            "in flight, requests and tokens": in_flight,
            "open streams": await self.service.metric("lodestar_open_streams"),
            "tasks": sum(held["tasks"].values()),
            "threads of Python": sum(threads.values()),
            "sockets": descriptors["socket"],
            "files": descriptors["file"],
            "child processes": len(children_of(pid)),
        }


def _descriptors(pid: int) -> Counter[str]:
    return Counter(map(_kind, Path(f"/proc/{pid}/fd").iterdir()))


def _kind(descriptor: Path) -> str:
    """gRPC has a pool of threads of its own, which grows and shrinks, with an eventfd for each."""
    try:
        target = str(descriptor.readlink())
    except FileNotFoundError:  # the one by which the folder was read, or closed meanwhile
        return ""
    return "file" if target.startswith("/") else target.partition(":")[0]


@asynccontextmanager
async def running_soak(folder: Path) -> AsyncIterator[SoakStack]:
    """All processes, on one core or two; the service keeps a checkpoint and a journal."""
    places = folder / "endpoints"
    places.mkdir()
    file = places / "endpoints.json"
    engines = SoakEngines(folder)
    endpoints = ComingEndpoints(file, engines)

    def edit(config: dict[str, Any]) -> None:
        cluster = cluster_of(config, "engines")
        del cluster["load_assignment"]
        watched = {"path": str(file), "watched_directory": {"path": str(places)}}
        source = {"resource_api_version": "V3", "path_config_source": watched}
        cluster |= {"type": "EDS", "eds_cluster_config": {"eds_config": source}}
        block = cluster["metadata"]["filter_metadata"]["lodestar"]
        block |= {
            "checkpoint_path": str(folder / "learned"),
            "journal_path": str(folder / "journal"),
        }

    extproc_port, admin_port = a_port(), a_port()
    config = envoy_config("envoy.yaml", extproc_port=extproc_port, engines=[], edit=edit)
    envoy = EnvoyProcess(config, folder)
    service = SoakService(envoy.config_file, folder, admin_port)
    async with AsyncExitStack() as stack:
        for process in (engines, service):
            stack.enter_context(process)
        for process in (engines, service):
            await process.ready()
        await stack.enter_async_context(envoy)
        running = SoakStack(envoy, service, [], endpoints, engines)
        await until(running.service_is_healthy)
        yield running
