"""PoolUpkeep: what goes on around one router while it serves.

Discovery, scraping, probing and expiry: everything that waits for the outside world.
The router itself knows none of it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import aclosing

from lodestar_extproc.config import Pool
from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.fleet.discovery import discover
from lodestar_extproc.fleet.engine_client import EngineClient
from lodestar_extproc.fleet.kv_events.following import KvFollowing
from lodestar_extproc.fleet.prober import Prober
from lodestar_extproc.fleet.scrape_budget import ScrapeBudget
from lodestar_extproc.fleet.scraper import Scraper
from lodestar_extproc.routing.assembly import apply_settings
from lodestar_extproc.routing.pool_view import PoolView, view_pool
from lodestar_extproc.routing.router import Router
from lodestar_extproc.routing.settle import settle_overcounted
from lodestar_extproc.service.endpoint_news import EndpointNews
from lodestar_extproc.service.file_limit import tell_if_too_few_files
from lodestar_extproc.service.saved_learning import CheckpointOwners, SavedLearning
from lodestar_extproc.sharing.handover import CURE
from lodestar_extproc.supervision import BackgroundTask, Supervisor

EXPIRY_INTERVAL_S = 1.0
"""Fine beside a request timeout of minutes; only what has expired costs anything."""
_log = logging.getLogger(__name__)


class PoolUpkeep:
    """Runs until cancelled.

    Args:
        client: for scrapes and probes.
        settled_early: is told of a pool how many requests were given up before their time.
        found: set once it was heard where the endpoints are, even if there are none.
        owners: of the checkpoints of all pools.
        budget: of a core, for reading metric pages of all pools.
        found_wrong: told what a probe of an address found wrong.
        supervisor: begins anew what fails.
        clock: monotonic seconds, the router's.
    """

    def __init__(
        self,
        pool: Pool,
        router: Router,
        client: EngineClient,
        *,
        found: asyncio.Event | None = None,
        owners: CheckpointOwners | None = None,
        budget: ScrapeBudget | None = None,
        found_wrong: Callable[[str, str], None] = lambda _address, _problem: None,
        settled_early: Callable[[str, int], None] = lambda _pool, _n: None,
        supervisor: Supervisor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._found = asyncio.Event() if found is None else found
        self._settled_early = settled_early
        self._warned_of_ends = False
        self._pool = pool
        self._router = router
        self._saved = SavedLearning(router, owners, clock)
        self._clock = clock
        self._supervisor = supervisor = supervisor or Supervisor()
        self._news = EndpointNews(router, found_wrong)
        self._scraper = Scraper(
            client,
            router.fleet.record_metrics,
            router.live,
            budget=budget,
            busy=lambda: router.fleet.n_in_flight > 0,
            at_rest=router.fleet.at_rest,
            supervisor=supervisor,
        )
        self._prober = Prober(client, self._news.probed, router.live, supervisor=supervisor)
        self._following = KvFollowing(router.fleet, supervisor, clock)

    async def run(self) -> None:
        """Keep the router informed and its learning safe."""
        work = {
            BackgroundTask.DISCOVERY: self._discover,
            BackgroundTask.SCRAPING: self._scraper.run,
            BackgroundTask.PROBING: self._prober.run,
            BackgroundTask.KV_EVENTS: self._following.run,
            BackgroundTask.EXPIRY: self._expire,
            BackgroundTask.CHECKPOINT: self._saved.save_often,
        }
        loop = asyncio.get_running_loop()
        self._router.samples.learn_later(loop.call_later)
        self._router.departures.count_later(loop.call_soon)
        try:
            async with asyncio.TaskGroup() as tasks:
                for task, run in work.items():
                    tasks.create_task(self._supervisor.keep(task, run))
        finally:
            self._catch_up()
            self.save()

    def _catch_up(self) -> None:
        """From now on nobody waits for what is to be counted, or learned, later."""
        for at_once in (self._router.departures.count_later, self._router.samples.learn_later):
            with self._supervisor.catching(BackgroundTask.OTHER):
                at_once(None)

    def adopt(self, pool: Pool) -> None:
        """Work by the settings of *pool* from now on; `run`, begun anew, waits by them."""
        self._pool = pool
        self._saved.adopt(lambda: apply_settings(self._router, pool.settings))

    def view(self) -> PoolView:
        """The pool as it is now, for those who watch."""
        return view_pool(self._router, self._scraper, self._clock(), self._following.counts)

    def restore(self) -> None:
        """Take up what was learned before, if there is anything."""
        self._saved.restore()

    def save(self) -> None:
        """Write the checkpoint, where one is configured."""
        with self._supervisor.catching(BackgroundTask.CHECKPOINT):
            self._saved.save()

    async def _discover(self) -> None:
        first = True
        async with aclosing(discover(self._pool)) as answers:
            async for endpoints in answers:
                if first and self._says_nothing(endpoints):
                    continue
                first = False
                await self._take(endpoints)

    def _says_nothing(self, endpoints: tuple[Endpoint, ...]) -> bool:
        """Whether the first answer is empty because nothing was heard yet: those known stay.

        Kubernetes gives its first answer once everything was listed.
        """
        return (
            not endpoints and self._pool.kubernetes is None and bool(self._router.fleet.endpoints)
        )

    async def _take(self, endpoints: tuple[Endpoint, ...]) -> None:
        self._router.set_endpoints(endpoints)
        self._following.set_endpoints(endpoints)
        self._found.set()
        for visitor in (self._scraper, self._prober):
            # A thousand endpoints take milliseconds, and others their turn. What is still visited
            # has left for the router, which then hears no more of it.
            await asyncio.sleep(0)
            visitor.set_endpoints(endpoints)
        tell_if_too_few_files(len(endpoints))
        _log.info("pool %s: %d endpoints", self._pool.name, len(endpoints))

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(EXPIRY_INTERVAL_S)
            self._router.expire(self._clock())
            self._news.paced(self._scraper)
            n_settled = settle_overcounted(self._router, self._clock())
            if n_settled:
                self._settled_early(self._pool.name, n_settled)
                self._warn_of_ends(n_settled)

    def _warn_of_ends(self, n_settled: int) -> None:
        """Once: a configuration that sends ends elsewhere does so with every request."""
        level = logging.DEBUG if self._warned_of_ends else logging.WARNING
        self._warned_of_ends = True
        _log.log(
            level,
            "pool %s: %d requests were given up: their engines have long ended them, and no end "
            "was heard of. Send Envoy's access log here; with several replicas, %s",
            self._pool.name,
            n_settled,
            CURE,
        )
