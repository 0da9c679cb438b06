"""EventWatch: looks at every pool once a second and has told what has changed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from lodestar_extproc.events.cache_changes import CacheChanges
from lodestar_extproc.events.choice_watch import ChoiceWatch
from lodestar_extproc.events.endpoint_changes import EndpointChanges
from lodestar_extproc.events.event_log import EventLog
from lodestar_extproc.events.learner_changes import LearnerChanges
from lodestar_extproc.routing.pool_view import PoolView

INTERVAL_S = 1.0
"""As often as endpoints are probed at their quickest; a look costs a fraction of a millisecond."""


class EventWatch:
    """One pool's watchers each, all telling one log.

    Args:
        pools: the pools as they are now.
        looked: told of each pool, too, as often.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        events: EventLog,
        names: Sequence[str],
        pools: Callable[[], Sequence[PoolView]],
        looked: Callable[[PoolView], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._looked = looked
        self._pools = pools
        self._clock = clock
        self.choices = {name: ChoiceWatch(events) for name in names}
        self.endpoints = {name: EndpointChanges(events) for name in names}
        self._learners = {name: LearnerChanges(events) for name in names}
        self._caches = {name: CacheChanges(events) for name in names}

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(INTERVAL_S)

    async def look(self) -> None:
        """Tell what is new."""
        at_s = self._clock()
        for view in self._pools():
            self._looked(view)
            pool = view.pool
            changes = (self.endpoints[pool], self._learners[pool], self._caches[pool])
            for watch in (*changes, self.choices[pool]):
                # Of a thousand endpoints each takes milliseconds: others have their turn.
                await asyncio.sleep(0)
                watch.observe(view, at_s)
