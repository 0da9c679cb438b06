"""App: the composition root of `serve`. It makes every part once, starts them, and stops them."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, aclosing, closing

from lodestar_extproc.admin.history import PoolHistory
from lodestar_extproc.admin.server import AdminServer
from lodestar_extproc.config import Config, Pool, PoolSettings
from lodestar_extproc.events.change import ChangeKind
from lodestar_extproc.events.event_log import EventLog
from lodestar_extproc.events.settings_changes import changed_settings
from lodestar_extproc.extproc.server import ExtProcServer
from lodestar_extproc.fleet.discovery import require_sources, watch_config
from lodestar_extproc.fleet.engine_client import EngineClient
from lodestar_extproc.fleet.scrape_budget import ScrapeBudget
from lodestar_extproc.kernel.compiled import FOUND
from lodestar_extproc.metrics import Metrics
from lodestar_extproc.routing.assembly import new_router, policy_for_route
from lodestar_extproc.routing.listener import RouterListener
from lodestar_extproc.routing.pool_view import PoolView
from lodestar_extproc.routing.router import Router
from lodestar_extproc.routing.routers import Routers
from lodestar_extproc.service.event_watch import EventWatch
from lodestar_extproc.service.garbage import settle_garbage
from lodestar_extproc.service.journals import new_journals
from lodestar_extproc.service.listen import all_addresses, own_addresses, replica_places
from lodestar_extproc.service.loop_lag import watch_lag
from lodestar_extproc.service.options import ServeOptions
from lodestar_extproc.service.pool_watches import PoolWatches
from lodestar_extproc.service.replicas import Replicas
from lodestar_extproc.service.saved_learning import CheckpointOwners
from lodestar_extproc.service.traces import new_traces
from lodestar_extproc.service.turn_taking import give_way_soon
from lodestar_extproc.service.upkeep import PoolUpkeep
from lodestar_extproc.service.worker import attend, own_admin
from lodestar_extproc.supervision import BackgroundTask, Supervisor
from lodestar_extproc.transport.choice import new_transport

_log = logging.getLogger(__name__)


class App:
    """Everything `serve` runs, in one event loop.

    Args:
        stopping: called once, when it begins to stop.
    """

    def __init__(
        self,
        config: Config,
        options: ServeOptions,
        *,
        stopping: Callable[[], None] = lambda: None,
    ) -> None:
        self._config = config
        self._options = options
        self._stopping = stopping
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()
        self._upkeeps: dict[str, PoolUpkeep] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._found = {pool.name: asyncio.Event() for pool in config.pools}
        self._owners = CheckpointOwners(options.worker)
        self._budget = ScrapeBudget()
        self.metrics = Metrics()
        self.events = EventLog()
        names = [pool.name for pool in config.pools]
        self._watch = EventWatch(self.events, names, self.pools, self._note)
        self._watches = PoolWatches(names, self._settings_of, alias_metrics=options.alias_metrics)
        self._traces = new_traces(wanted=options.tracing)
        self._supervisor = Supervisor(self.metrics.task_failed)
        self._journals = new_journals(config.pools, self.metrics, self._supervisor, options.worker)
        self.admin = AdminServer(self.metrics, self.pools, self.events, self._watches.gains)
        places = replica_places(config, options.peers, options.worker)
        self.replicas = Replicas(places, self.metrics, self._supervisor, options.worker)
        self.routers = Routers([self._router(pool) for pool in config.pools], policy_for_route)
        self.ext_proc = ExtProcServer(
            self.replicas.join(self.routers),
            self.metrics,
            access_log=config.sources.access_log_tags is not None,
            origin=self.replicas.origin,
            traces=self._traces,
            others=self.replicas.handover,
            transport=new_transport(options.transport),
        )
        self.replicas.handover.ends = self.ext_proc.ends

    def _router(self, pool: Pool) -> Router:
        return new_router(
            pool.name,
            pool.settings,
            pool.endpoints,
            listeners=self._listeners(pool),
            sees_first_tokens=self._config.sources.first_token,
            origin=self.replicas.origin,
        )

    def _listeners(self, pool: Pool) -> list[RouterListener]:
        path = pool.settings.journal_path
        journal = [] if path is None else [self._journals[path]]
        history = self.admin.histories[pool.name] = PoolHistory()
        watching = (
            self._watch.choices[pool.name],
            *self._watches.listeners(pool.name),
            history,
        )
        ours: list[RouterListener] = [self.metrics, self.admin.decisions, *watching, *journal]
        traces = [] if self._traces is None else [self._traces]
        return [*ours, *traces, *self.replicas.listeners(pool)]

    def _settings_of(self, pool: str) -> Callable[[], PoolSettings]:
        return lambda: self.routers.get(pool).settings

    def pools(self) -> list[PoolView]:
        """Every pool as it is now, for those who watch."""
        return [self.replicas.view(upkeep.view()) for upkeep in self._upkeeps.values()]

    def _note(self, view: PoolView) -> None:
        self.metrics.forget_who_left(view)
        self._watches.forget_who_left(view)
        self.admin.histories[view.pool].look(view, lambda: self._watches.gains_of(view.pool))

    async def run(self) -> None:
        """Serve until `stop` or a signal; then drain.

        Raises:
            OSError: an address cannot be bound.
            ValueError: none is known, or there is no certificate.
            NotConnected: endpoints are to come from Kubernetes, and there is none.
        """
        self._heed_signals()
        give_way_soon()
        asyncio.get_running_loop().set_exception_handler(self._supervisor.heed)
        await require_sources(self._config.pools)
        async with AsyncExitStack() as stack:
            client = stack.enter_context(closing(EngineClient()))
            for pool in self._config.pools:
                self._upkeeps[pool.name] = self._upkeep(pool, client)
                self._upkeeps[pool.name].restore()
            self._watches.show(self.metrics, self.pools)
            for journal in self._journals.values():
                await stack.enter_async_context(journal.running())
            admin = own_admin(self._options.admin, self._options.worker)
            await self.admin.start(admin, self._options.admin_access)
            stack.push_async_callback(self.admin.stop)
            if self._traces is not None:
                stack.callback(self._traces.stop)
            stack.push_async_callback(self.ext_proc.stop, 0.0)
            await self._keep_up(await self._listen())

    async def _listen(self) -> tuple[str, ...]:
        """Take streams from now on, and say where; ready once endpoints were looked for."""
        place = self._options.worker
        n_workers = 1 if place is None else place.n_workers
        everywhere = all_addresses(self._config, self._options.listen, n_workers)
        addresses = own_addresses(everywhere, place)
        await self.ext_proc.start(
            addresses,
            tls=self._options.tls,
            health_addresses=self._options.health,
            beside=self.replicas.services,
            beside_addresses=() if place is None else (place.sockets[place.number],),
            shared_ports=place is not None and addresses == everywhere,
            serving=False,
        )
        return addresses

    async def _keep_up(self, addresses: Sequence[str]) -> None:
        """Everything that goes on beside the requests, until it is time to stop."""
        keep = self._supervisor.keep
        async with asyncio.TaskGroup() as group:
            for name, upkeep in self._upkeeps.items():
                self._tasks[name] = group.create_task(upkeep.run())
            following = group.create_task(
                keep(BackgroundTask.CONFIGURATION, lambda: self._follow_config(group))
            )
            lagging = group.create_task(
                keep(BackgroundTask.LOOP_LAG, lambda: watch_lag(self.metrics.loop_lag))
            )
            watching = group.create_task(keep(BackgroundTask.EVENTS, self._watch.run))
            readying = group.create_task(
                keep(BackgroundTask.READINESS, lambda: self._get_ready(addresses))
            )
            others = group.create_task(keep(BackgroundTask.REPLICAS, self.replicas.run))
            reader = group.create_task(keep(BackgroundTask.READER, self.ext_proc.reader.run))
            attending = group.create_task(
                keep(BackgroundTask.WORKER, lambda: attend(self._options.worker, self.stop))
            )
            await self._stop.wait()
            readying.cancel()
            await self._drain()
            # While others can still be told what is heard in the last moments.
            self.replicas.stop()
            await self.ext_proc.stop(self._options.grace_s)
            await self.replicas.flush()
            beside = (following, lagging, watching, others, reader, attending)
            for task in (*beside, *self._tasks.values()):
                task.cancel()

    async def _get_ready(self, addresses: Sequence[str]) -> None:
        """Say so once it is known where every pool's endpoints are."""
        for found in self._found.values():
            await found.wait()
        # It takes long enough to be noticed: before the first request, not during it.
        settle_garbage()
        self.admin.set_ready(ready=True)
        self.ext_proc.set_serving(serving=True)
        heard = ", ".join(addresses)
        _log.info("serving Envoy on %s; admin on %s; %s", heard, self.admin.address, FOUND.words)

    async def _drain(self) -> None:
        _log.info("stopping: draining for %g s", self._options.drain_s)
        self.admin.set_ready(ready=False)
        self.ext_proc.set_serving(serving=False)
        await asyncio.sleep(self._options.drain_s)

    def stop(self) -> None:
        """Begin to drain. Idempotent."""
        if not self._stop.is_set():
            self._stopping()
        self._stop.set()

    def reload(self) -> None:
        """Read the configuration again now, rather than when its file is seen to change."""
        if self._config.path is None:
            _log.info("told to read the configuration again: there is no file of it")
            return
        _log.info("told to read the configuration again")
        self._reload.set()

    def _heed_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        # Its default would end the service at once, with no drain and no checkpoint.
        loop.add_signal_handler(signal.SIGHUP, self.reload)

    def _upkeep(self, pool: Pool, client: EngineClient) -> PoolUpkeep:
        router, found = self.routers.get(pool.name), self._found[pool.name]
        return PoolUpkeep(
            pool,
            router,
            client,
            found=found,
            owners=self._owners,
            budget=self._budget,
            found_wrong=self._watch.endpoints[pool.name].found,
            settled_early=self.metrics.settled_early,
            supervisor=self._supervisor,
        )

    async def _follow_config(self, group: asyncio.TaskGroup) -> None:
        versions = watch_config(self._config, self._told_of_config, self._reload)
        async with aclosing(versions):
            async for latest in versions:
                for pool in latest.pools:
                    await self._apply(pool, self._config.pool(pool.name), group)
                self.routers.forget_overrides()
                self.metrics.config_reloaded("applied")
                self._config = latest

    async def _apply(self, pool: Pool, old: Pool | None, group: asyncio.TaskGroup) -> None:
        if pool == old:
            return
        await self._adopt(pool, group)
        words = "" if old is None else changed_settings(old.settings, pool.settings)
        self.events.tell(ChangeKind.SETTINGS_APPLIED, f"settings applied: {words}", pool=pool.name)

    def _told_of_config(self, result: str, why: str) -> None:
        refused = result == "refused"
        kind = ChangeKind.SETTINGS_REFUSED if refused else ChangeKind.SETTINGS_NEED_RESTART
        self.events.tell(kind, why)
        self.metrics.config_reloaded(result)

    async def _adopt(self, pool: Pool, group: asyncio.TaskGroup) -> None:
        """Run by the new settings of *pool*, and wait for nothing by its old ones."""
        self._upkeeps[pool.name].adopt(pool)
        self._tasks[pool.name].cancel()
        await asyncio.wait([self._tasks[pool.name]])
        self._tasks[pool.name] = group.create_task(self._upkeeps[pool.name].run())
