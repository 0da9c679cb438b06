"""Poller: visits every endpoint at a steady pace.

It knows the pace only: what a visit does (scrape, probe) is handed in.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.supervision import BackgroundTask, Supervisor

GROUP_VISITS = 4
"""Visits that begin together, at most; the groups are spread over the interval.

What so many do in a row takes less than a millisecond, and a request may come between. Each alone
wakes a cold processor each time: for 64 endpoints, eight groups of eight cost half as much as 64
single visits (benchmarks/scraping.py).
"""

NEW_PAUSE_S = 5e-3
"""Between groups of first visits: several hundred that join at once are visited within a second,
and requests come between."""


class Poller:
    """Calls *visit* for every endpoint once an interval, spread over it.

    One endpoint's visits never overlap: while one goes on, those that fall due are left out. No
    visit waits for another one's.

    Args:
        visit: what it raises is caught, and the endpoint is visited again when it is due.
        interval_s: asked at each step, so that a change counts from the next one on.
        is_due: asked when an endpoint's turn comes; where not, the turn is left out.
        task: what visits are for, and *supervisor* is told when one fails.
    """

    def __init__(
        self,
        visit: Callable[[Endpoint], Awaitable[None]],
        *,
        interval_s: Callable[[], float],
        is_due: Callable[[Endpoint], bool] = lambda _: True,
        task: BackgroundTask = BackgroundTask.OTHER,
        supervisor: Supervisor | None = None,
    ) -> None:
        self._visit = visit
        self._interval_s = interval_s
        self._is_due = is_due
        self._task = task
        self._supervisor = supervisor or Supervisor()
        self._endpoints: tuple[Endpoint, ...] = ()
        self._visits: dict[str, asyncio.Task[None]] = {}
        self._new: dict[str, Endpoint] = {}
        self._has_new = asyncio.Event()

    def set_endpoints(self, endpoints: Iterable[Endpoint]) -> None:
        """Visit these from now on; visits to others, or to what these were before, are dropped."""
        wanted = tuple(endpoints)
        stay = {endpoint.address: endpoint for endpoint in wanted}
        for known in self._endpoints:
            now = stay.get(known.address)
            if now is known or now == known:  # the first is quick, and mostly so
                continue
            if (visit := self._visits.pop(known.address, None)) is not None:
                visit.cancel()
        if self._endpoints:
            visited = {endpoint.address for endpoint in self._endpoints} - self._new.keys()
            self._new = {a: endpoint for a, endpoint in stay.items() if a not in visited}
        if self._new:
            self._has_new.set()
        self._endpoints = wanted

    async def run(self) -> None:
        """Visit until cancelled."""
        now_s = asyncio.get_running_loop().time
        due_s, turn = now_s(), 0
        try:
            while True:
                phases = max(1, math.ceil(len(self._endpoints) / GROUP_VISITS))
                self._start_visits(self._endpoints[turn % phases :: phases])
                turn += 1
                # After a stall the missed turns are left out, not made up for.
                due_s = max(due_s + self._interval_s() / phases, now_s())
                await self._visit_new_until(due_s)
        finally:
            await self._drop_visits()

    async def _visit_new_until(self, due_s: float) -> None:
        """Visit those that have joined, so that none waits an interval for its first visit."""
        now_s = asyncio.get_running_loop().time
        while now_s() < due_s:
            with suppress(TimeoutError):
                async with asyncio.timeout(due_s - now_s()):
                    await self._has_new.wait()
            if not self._has_new.is_set():
                return
            self._start_visits([self._new.pop(a) for a in list(self._new)[:GROUP_VISITS]])
            if not self._new:
                self._has_new.clear()
            await asyncio.sleep(NEW_PAUSE_S)

    def _start_visits(self, endpoints: Iterable[Endpoint]) -> None:
        for endpoint in endpoints:
            visit = self._visits.get(endpoint.address)
            if (visit is None or visit.done()) and self._is_due(endpoint):
                self._visits[endpoint.address] = asyncio.ensure_future(self._one_visit(endpoint))

    async def _one_visit(self, endpoint: Endpoint) -> None:
        with self._supervisor.catching(self._task):
            await self._visit(endpoint)

    async def _drop_visits(self) -> None:
        visits = list(self._visits.values())
        self._visits.clear()
        for visit in visits:
            visit.cancel()
        await asyncio.gather(*visits, return_exceptions=True)
