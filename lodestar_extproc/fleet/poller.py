"""Poller: visits every endpoint at a steady pace.

It knows the pace only: what a visit does (scrape, probe) is handed in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import aiohttp

from lodestar_extproc.endpoint import Endpoint

PHASES = 8
"""Groups into which one interval's visits are spread.

All at once would hold up the event loop; each alone wakes a cold processor each time: for 64
endpoints, eight groups of eight cost half as much as 64 single visits (benchmarks/scraping.py).
"""
KEEPALIVE_S = 4.0
"""vLLM's HTTP server closes an idle connection after 5 s; we close first."""


class Poller:
    """Calls *visit* for every endpoint once an interval, spread over it.

    One endpoint's visits never overlap: while one goes on, those that fall due are left out. No
    visit waits for another one's.

    Args:
        visit: must not raise.
        interval_s: asked at each step, so that a change counts from the next one on.
        busy: while it is False the pace is *idle_interval_s*, where that is slower.
    """

    def __init__(
        self,
        visit: Callable[[Endpoint], Awaitable[None]],
        *,
        interval_s: Callable[[], float],
        busy: Callable[[], bool] = lambda: True,
        idle_interval_s: float = 0.0,
    ) -> None:
        self._visit = visit
        self._interval_s = interval_s
        self._busy = busy
        self._idle_interval_s = idle_interval_s
        self._endpoints: tuple[Endpoint, ...] = ()
        self._visits: dict[str, asyncio.Task[None]] = {}

    def set_endpoints(self, endpoints: Iterable[Endpoint]) -> None:
        """Visit these from now on; visits to others, or to what these were before, are dropped."""
        wanted = tuple(endpoints)
        for gone in set(self._endpoints) - set(wanted):
            if (visit := self._visits.pop(gone.address, None)) is not None:
                visit.cancel()
        self._endpoints = wanted

    async def run(self) -> None:
        """Visit until cancelled."""
        now_s = asyncio.get_running_loop().time
        due_s, turn = now_s(), 0
        try:
            while True:
                self._start_visits(turn)
                turn += 1
                # After a stall the missed turns are left out, not made up for.
                due_s = max(due_s + self._interval_s() / PHASES, now_s())
                await asyncio.sleep(due_s - now_s())
        finally:
            await self._drop_visits()

    def _start_visits(self, turn: int) -> None:
        lap, phase = divmod(turn, PHASES)
        if not self._busy() and lap % max(1, round(self._idle_interval_s / self._interval_s())):
            return
        for endpoint in self._endpoints[phase::PHASES]:
            visit = self._visits.get(endpoint.address)
            if visit is None or visit.done():
                self._visits[endpoint.address] = asyncio.ensure_future(self._visit(endpoint))

    async def _drop_visits(self) -> None:
        visits = list(self._visits.values())
        self._visits.clear()
        for visit in visits:
            visit.cancel()
        await asyncio.gather(*visits, return_exceptions=True)


def open_session() -> aiohttp.ClientSession:
    """The HTTP session that all visits share; to be made, and closed, inside an event loop."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        # Compressing a page costs an engine more than sending it.
        headers={"Accept-Encoding": "identity"},
    )
