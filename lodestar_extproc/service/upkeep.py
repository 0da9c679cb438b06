"""PoolUpkeep: what goes on around one router while it serves.

Discovery, scraping, probing, expiry and checkpoints: everything that waits for the outside world.
The router itself knows none of it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp

from lodestar_extproc.config import Pool
from lodestar_extproc.fleet.discovery import discover
from lodestar_extproc.fleet.prober import Prober
from lodestar_extproc.fleet.scraper import Scraper
from lodestar_extproc.learning.checkpoint import warm_start, write_checkpoint
from lodestar_extproc.routing.assembly import apply_settings
from lodestar_extproc.routing.pool_view import PoolView, view_pool
from lodestar_extproc.routing.router import Router

EXPIRY_INTERVAL_S = 1.0
"""Fine beside a request timeout of minutes; only what has expired costs anything."""
_log = logging.getLogger(__name__)


class PoolUpkeep:
    """Runs until cancelled.

    Args:
        session: for scrapes and probes.
        found: set once it was heard where the endpoints are, even if there are none.
        clock: monotonic seconds, the router's.
    """

    def __init__(
        self,
        pool: Pool,
        router: Router,
        session: aiohttp.ClientSession,
        *,
        found: asyncio.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._found = asyncio.Event() if found is None else found
        self._pool = pool
        self._router = router
        self._clock = clock
        self._scraper = Scraper(
            session,
            router.fleet.record_metrics,
            router.live,
            busy=lambda: router.fleet.n_in_flight > 0,
        )
        self._prober = Prober(session, router.fleet.record_probe, router.live)

    async def run(self) -> None:
        """Keep the router informed and its learning safe."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._discover())
                tasks.create_task(self._scraper.run())
                tasks.create_task(self._prober.run())
                tasks.create_task(self._expire())
                tasks.create_task(self._save_often())
        finally:
            self.save()

    def adopt(self, pool: Pool) -> None:
        """Work by the settings of *pool* from now on; start `run` anew, so that it waits by them.

        Where the checkpoint is to be another file, what was learned goes into the old one first,
        and what the new one holds is taken up, as at a start.
        """
        moves = pool.settings.checkpoint_path != self._router.settings.checkpoint_path
        if moves:
            self.save()
        self._pool = pool
        apply_settings(self._router, pool.settings)
        if moves:
            self.restore()

    def view(self) -> PoolView:
        """The pool as it is now, for those who watch."""
        return view_pool(self._router, self._scraper.counts, self._clock())

    @property
    def _checkpoint_path(self) -> Path | None:
        path = self._router.settings.checkpoint_path
        return None if path is None else Path(path)

    def restore(self) -> None:
        """Take up what was learned before, if there is anything; what cannot be read is told."""
        path = self._checkpoint_path
        if path is None:
            return
        try:
            warm = warm_start(path, self._predictor_name, self._router.learner)
        except OSError as error:
            # It is there, and can be neither read nor set aside: no reason to stop serving.
            _log.warning("pool %s: checkpoint %s not taken up: %s", self._pool.name, path, error)
            return
        if warm:
            _log.info("pool %s: starting warm from %s", self._pool.name, path)

    def save(self) -> None:
        """Write the checkpoint, where one is configured."""
        path = self._checkpoint_path
        if path is None:
            return
        try:
            write_checkpoint(path, self._predictor_name, self._router.learner.state())
        except OSError as error:
            _log.warning("pool %s: checkpoint %s not written: %s", self._pool.name, path, error)

    @property
    def _predictor_name(self) -> str:
        return self._router.learner.predictor.name

    async def _discover(self) -> None:
        async for endpoints in discover(self._pool):
            self._router.set_endpoints(endpoints)
            self._scraper.set_endpoints(endpoints)
            self._prober.set_endpoints(endpoints)
            self._found.set()
            _log.info("pool %s: %d endpoints", self._pool.name, len(endpoints))

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(EXPIRY_INTERVAL_S)
            self._router.expire(self._clock())

    async def _save_often(self) -> None:
        while True:
            await asyncio.sleep(self._router.settings.checkpoint_interval_s)
            path, state = self._checkpoint_path, self._router.learner.state()
            if path is None:
                continue
            try:
                # The disk may take its time; requests may not.
                await asyncio.to_thread(write_checkpoint, path, self._predictor_name, state)
            except OSError as error:
                _log.warning("pool %s: checkpoint %s not written: %s", self._pool.name, path, error)
