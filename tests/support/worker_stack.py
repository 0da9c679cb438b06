"""One Envoy, one `serve --workers`, and engines, all processes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from envoy_process import EnvoyProcess, cluster_of, envoy_config, patient
from ports import a_port
from process_children import children_of
from process_stack import Engine, Service, ServicePort
from replica_stack import entry_of
from waiting import until


@dataclass
class WorkerStack:
    """What a test breaks, and looks at; *workers* are the operators' ports of each."""

    envoy: EnvoyProcess
    service: Service
    workers: list[ServicePort]
    engines: list[Engine]

    async def decided(self) -> list[float]:
        return [await each.metric("lodestar_decisions_total") for each in self.workers]

    async def all_shared(self) -> bool:
        try:
            pools = [await each.pool() for each in self.workers]
        except aiohttp.ClientError:  # one is being begun anew
            return False
        others = len(self.workers) - 1
        return all(p["share"] == "shared" and p["peers"] == others for p in pools)

    async def nothing_is_open(self) -> bool:
        pools = [await each.pool() for each in self.workers]
        return all(pool["open_decisions"] == 0 for pool in pools)

    async def total(self, series: str) -> float:
        """Of all workers, a metric or one series of it."""
        return sum([await each.metric(series) for each in self.workers])

    async def failures(self) -> dict[str, int]:
        """What Envoy's filters asked for in vain."""
        return await self.envoy.stats("ext_proc.(failure_mode_allowed|message_timeouts)")

    def pids(self) -> list[int]:
        """Of the processes that the parent keeps now."""
        return children_of(self.service.pid)


@asynccontextmanager
async def running_workers(
    folder: Path,
    n: int = 2,
    *,
    addresses_each: bool = False,
    engines_at: Sequence[str] = (),
    options: Sequence[str] = (),
    edit: Callable[[dict[str, Any]], None] = patient,
    **settings: Any,
) -> AsyncIterator[WorkerStack]:
    """*n* workers on one port, or on *n* that Envoy's cluster names.

    Args:
        engines_at: those of a test's own, in place of two that echo.
        settings: of the pool.
    """
    ports = [a_port() for _ in range(n if addresses_each else 1)]
    async with AsyncExitStack() as stack:
        engines = [] if engines_at else [Engine(f"engine{i}", folder) for i in range(2)]

        def edit_all(config: dict[str, Any]) -> None:
            edit(config)
            assignment = cluster_of(config, "lodestar")["load_assignment"]
            assignment["endpoints"] = [{"lb_endpoints": [entry_of(port) for port in ports]}]
            block = cluster_of(config, "engines")["metadata"]["filter_metadata"]["lodestar"]
            block |= settings

        addresses = [*engines_at, *(engine.address for engine in engines)]
        config = envoy_config("envoy.yaml", extproc_port=0, engines=addresses, edit=edit_all)
        envoy = EnvoyProcess(config, folder)
        admin = _free_in_a_row(n)
        quick = ("--drain", "0.1", "--grace", "1")
        service = Service(envoy.config_file, folder, admin, "--workers", str(n), *quick, *options)
        workers = [ServicePort(f"http://127.0.0.1:{admin + i}") for i in range(n)]
        for process in (*engines, service):
            stack.enter_context(process)
        for process in (*engines, service):
            await process.ready()
        whole = WorkerStack(envoy, service, workers, engines)
        await until(lambda: len(re.findall("serving Envoy on", service.log())) >= n)
        await until(whole.all_shared)
        await stack.enter_async_context(envoy)
        yield whole


def _free_in_a_row(n: int) -> int:
    """The first of *n* ports that follow each other; the rest are likely to be free, too."""
    while True:
        first = a_port()
        if first % 100 < 100 - n:
            return first
