"""App: the composition root of `serve`. It makes every part once, starts them, and stops them."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from lodestar_extproc.admin.server import AdminServer
from lodestar_extproc.assembly import new_policy, new_router, policy_for_route
from lodestar_extproc.config import EnvoyConfig, Pool
from lodestar_extproc.extproc.server import EdgeServer
from lodestar_extproc.fleet.discovery import watch_config
from lodestar_extproc.fleet.poller import open_session
from lodestar_extproc.metrics import Metrics
from lodestar_extproc.policies.heuristics import HEURISTICS
from lodestar_extproc.pool_upkeep import PoolUpkeep
from lodestar_extproc.pool_view import PoolView
from lodestar_extproc.router import Router
from lodestar_extproc.routers import Routers

LAG_INTERVAL_S = 0.1
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How to run, apart from what the Envoy configuration says.

    Attributes:
        listen: addresses for Envoy, `host:port` or `unix:/path`; empty takes the configuration's.
        admin: `host:port` of the HTTP server for operators.
        drain_s: how long to serve on after health checks have begun to fail.
        grace_s: how long open streams may then take to end.
    """

    listen: tuple[str, ...] = ()
    admin: str = "127.0.0.1:9090"
    drain_s: float = 1.0
    grace_s: float = 5.0


class App:
    """Everything `serve` runs, in one event loop."""

    def __init__(self, config: EnvoyConfig, options: ServeOptions) -> None:
        self._config = config
        self._options = options
        self._stop = asyncio.Event()
        self._upkeeps: list[PoolUpkeep] = []
        self.metrics = Metrics()
        self.admin = AdminServer(self.metrics, self.pools)
        self.routers = Routers([self._router(pool) for pool in config.pools], policy_for_route)
        self.edge = EdgeServer(
            self.routers, self.metrics, access_log=config.sources.access_log_tags is not None
        )

    def _router(self, pool: Pool) -> Router:
        return new_router(
            pool.name,
            pool.settings,
            pool.endpoints,
            listeners=[self.metrics, self.admin.decisions],
            sees_first_tokens=self._config.sources.first_token,
        )

    def pools(self) -> list[PoolView]:
        """Every pool as it is now, for those who watch."""
        return [upkeep.view() for upkeep in self._upkeeps]

    async def run(self) -> None:
        """Serve until `stop` or a signal; then drain."""
        self._stop_on_signals()
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(open_session())
            self._upkeeps = [
                PoolUpkeep(pool, self.routers.get(pool.name), session)
                for pool in self._config.pools
            ]
            for upkeep in self._upkeeps:
                upkeep.restore()
            self.metrics.watch(self.pools)
            await stack.enter_async_context(_running([u.run() for u in self._upkeeps]))
            await stack.enter_async_context(_running([self._follow_config(), self._watch_lag()]))
            await self.admin.start(self._options.admin)
            stack.push_async_callback(self.admin.stop)
            addresses = self._options.listen or listen_addresses(self._config)
            await self.edge.start(addresses)
            stack.push_async_callback(self.edge.stop, self._options.grace_s)
            self.admin.set_ready(ready=True)
            _log.info("serving Envoy on %s; admin on %s", ", ".join(addresses), self._options.admin)
            _settle_garbage()
            await self._stop.wait()
            _log.info("stopping: draining for %g s", self._options.drain_s)
            self.admin.set_ready(ready=False)
            self.edge.set_serving(serving=False)
            await asyncio.sleep(self._options.drain_s)

    def stop(self) -> None:
        """Begin to drain. Idempotent."""
        self._stop.set()

    def _stop_on_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)

    async def _follow_config(self) -> None:
        async for config in watch_config(self._config):
            self.metrics.config_reloaded(applied=True)
            for pool in config.pools:
                router = self.routers.get(pool.name)
                policy = new_policy(pool.settings, router.learner)
                fallback = HEURISTICS[pool.settings.fallback_policy]()
                router.adopt(pool.settings, policy, fallback)
                router.set_endpoints(pool.endpoints or router.fleet.endpoints)
            self.routers.forget_overrides()

    async def _watch_lag(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            asleep_at_s = clock()
            await asyncio.sleep(LAG_INTERVAL_S)
            self.metrics.loop_lag(max(0.0, clock() - asleep_at_s - LAG_INTERVAL_S))


def listen_addresses(config: EnvoyConfig) -> tuple[str, ...]:
    """Where Envoy will look for us, made into addresses to bind.

    A loopback or wildcard address, or a socket's path, is taken as it stands; for any other host,
    which is ours as seen by Envoy, all interfaces are bound.

    Raises:
        ValueError: the configuration does not say.
    """
    named = dict.fromkeys(a for a in (config.extproc_address, config.access_log_address) if a)
    if not named:
        raise ValueError(
            f"{config.path} does not say where the ext_proc service is; use --listen, for "
            "example --listen 0.0.0.0:9002"
        )
    return tuple(dict.fromkeys(_bindable(address) for address in named))


def _bindable(address: str) -> str:
    host, _, port = address.rpartition(":")
    if address.startswith("unix:") or host in ("127.0.0.1", "[::1]", "localhost", "0.0.0.0"):  # noqa: S104
        return address
    return f"0.0.0.0:{port}"


@asynccontextmanager
async def _running(coroutines: Sequence[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run them beside the body; end them with it, and it with them if one fails."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(c) for c in coroutines]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


def _settle_garbage() -> None:
    """What lives as long as the process need not be looked at again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
