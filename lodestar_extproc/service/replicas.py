"""Replicas: this process among others: what it hands to them, and what it shares with them."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from lodestar_extproc.config import Pool
from lodestar_extproc.config.share import ShareTarget, check_share, parse_share
from lodestar_extproc.fleet.discovery.dns import resolve
from lodestar_extproc.routing.ids import new_origin
from lodestar_extproc.routing.listener import RouterListener
from lodestar_extproc.routing.pool_view import PoolView
from lodestar_extproc.routing.routers import Routers
from lodestar_extproc.service.worker import WorkerPlace
from lodestar_extproc.sharing.handed import HandedEvent
from lodestar_extproc.sharing.handover import Handover, HandoverListener, HandoverResult
from lodestar_extproc.sharing.links import Links
from lodestar_extproc.sharing.shared_pool import SharedPool
from lodestar_extproc.sharing.sharer import ShareListener, Sharer
from lodestar_extproc.sharing.tell_service import TellService
from lodestar_extproc.supervision import BackgroundTask, Supervisor
from lodestar_extproc.transport.calls import Services

URL_VARIABLE = "LODESTAR_SHARE_URL"
"""Environment for pools whose settings name no store: one deployment has it, another has not."""
FLUSH_S = 0.5
"""At the end: fifty times what a message to a replica waits (`sharing/links.py`)."""


class ReplicaListener(HandoverListener, ShareListener, Protocol):
    """Who is told of all of it: metrics."""


class Replicas:
    """All that this process is to others. `listeners` of every pool first, then `join`.

    Args:
        places: `host:port` of every replica that Envoy may ask, this one among them.
        supervisor: begins sharing anew whatever goes wrong in it; requests go on.
        place: which of several workers we are; they share by their hub where settings name no
            store.

    Attributes:
        origin: our name; the ids of our decisions begin with it.
        sharers: by pool, for those that are shared.
        handover: what stands for our routers where answers are heard of; once joined.
    """

    handover: Handover

    def __init__(
        self,
        places: Sequence[str],
        listener: ReplicaListener,
        supervisor: Supervisor,
        place: WorkerPlace | None = None,
    ) -> None:
        self._place = place
        self.origin = new_origin(random.SystemRandom())
        self._listener = listener
        self._supervisor = supervisor
        self._shared: dict[str, SharedPool] = {}
        self.sharers: dict[str, Sharer] = {}
        self._links = Links(self.origin, places, resolve, lost=self._count_lost)
        # One place is our own: there is nobody to hand anything to.
        self._has_others = len(set(places)) > 1 or any(map(_may_be_several, places))
        self._service = TellService(self.origin, self._receive)

    def listeners(self, pool: Pool) -> list[RouterListener]:
        """Who listens to the router of *pool* for the others: nobody where it is not shared.

        Raises:
            SettingError: the environment names no store that can be shared through.
        """
        target = self._target(pool)
        if target is None:
            return []
        shared = SharedPool(self.origin, target.frame_s, self._receive)
        self._shared[pool.name] = shared
        self.sharers[pool.name] = Sharer(pool.name, target, shared, self._listener)
        return [shared.outbox]

    def _target(self, pool: Pool) -> ShareTarget | None:
        url = pool.settings.share or os.environ.get(URL_VARIABLE)
        if url:
            check_share(url)
            return parse_share(url)
        return None if self._place is None else ShareTarget(hub=self._place.hub)

    def join(self, routers: Routers) -> Handover:
        """Be a replica with these routers."""
        self.handover = Handover(self.origin, routers, self._post, self._listener)
        for pool, shared in self._shared.items():
            shared.join(routers.get(pool))
        return self.handover

    @property
    def services(self) -> Services:
        """What is served to other replicas, on the port that Envoy asks."""
        return self._service.services

    def view(self, view: PoolView) -> PoolView:
        """*view*, with how well its pool is shared."""
        sharer = self.sharers.get(view.pool)
        return view if sharer is None else replace(view, share=sharer.state, peers=sharer.n_peers)

    async def run(self) -> None:
        """Keep in touch with the others, until cancelled."""
        async with asyncio.TaskGroup() as group:
            if self._has_others:
                group.create_task(self._links.run())
            for sharer in self.sharers.values():
                group.create_task(self._supervisor.keep(BackgroundTask.REPLICAS, sharer.run))

    def stop(self) -> None:
        """End what others tell us: a server that stops would wait for it."""
        self._service.end()

    async def flush(self) -> None:
        """Tell others the last of what was heard; those who take nothing are not waited for."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                await self._links.flushed()
        longest_s = max((each.frame_s for each in self.sharers.values()), default=0.0)
        await asyncio.sleep(min(longest_s, FLUSH_S))

    def _count_lost(self, n: int) -> None:
        for _ in range(n):
            self._listener.handed_over(HandoverResult.LOST)

    def _post(self, owner: str, event: HandedEvent) -> bool:
        posted = self._links.post(owner, event)
        return posted or any(shared.hand(owner, event) for shared in self._shared.values())

    def _receive(self, event: HandedEvent | None) -> None:
        self.handover.receive(event)


def _may_be_several(place: str) -> bool:
    """Whether *place* has a name, which may stand for several addresses."""
    host = place.rpartition(":")[0]
    return not place.startswith(("unix", "[")) and any(c.isalpha() for c in host)
