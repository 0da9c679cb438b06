"""Scraper: reads the engines' metric pages and publishes what they say.

It keeps nothing but counts; whoever is published to decides what a value is worth.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.endpoint import Endpoint, EndpointMetrics
from lodestar_extproc.fleet.engine_client import EngineClient, EngineSilent
from lodestar_extproc.fleet.engine_metrics import PageReader
from lodestar_extproc.fleet.page_url import PageUrl
from lodestar_extproc.fleet.poller import Poller
from lodestar_extproc.fleet.scrape_budget import ScrapeBudget
from lodestar_extproc.supervision import BackgroundTask, Supervisor

Publish = Callable[[str, EndpointMetrics, float], None]
"""Called with address, metrics, and the monotonic second in which they were asked for."""

MAX_PAGE_BYTES = 3 * 1024 * 1024
"""vLLM's page has 51 KB, and most of them again for each data-parallel engine: those of 64 have 2
to 3 MB, which take 6 ms to read. A larger page is no engine's."""
SLICE_BYTES = 16 * 1024
"""Read at once, in 4 ms where every line counts, and 0.03 ms of a usual page: requests come
between."""
IDLE_INTERVAL_S = 1.0
"""Pace for an engine at rest, and for all while the fleet has no traffic: rendering a page costs a
vLLM server 5 to 28 ms."""


@dataclass(slots=True)
class ScrapeCounts:
    """How the scrapes of one endpoint ended, why the last failure was one, and when it was asked.

    Attributes:
        asked_at_s: monotonic, of the last scrape that began.
    """

    succeeded: int = 0
    failed: int = 0
    last_failure: str = ""
    asked_at_s: float = -math.inf


class _ReadPage(NamedTuple):
    """What came as a page.

    Attributes:
        names: those on it that are read.
    """

    metrics: EndpointMetrics
    names: frozenset[bytes]
    n_bytes: int


class Scraper:
    """Scrapes every endpoint that has a metrics URL, each at its own pace.

    Args:
        client: by which engines are asked.
        budget: of a core, which other pools share.
        busy: whether the fleet has traffic; without it, pages are read every *idle_interval_s*.
        at_rest: whether the engine at an address has nothing to do: its page is read as often as
            without traffic, for it says the same.
        supervisor: told of what should not happen.

    Attributes:
        pace: how often it may read.
    """

    def __init__(
        self,
        client: EngineClient,
        publish: Publish,
        live: LiveSettings,
        *,
        budget: ScrapeBudget | None = None,
        busy: Callable[[], bool] = lambda: True,
        at_rest: Callable[[str], bool] = lambda _: False,
        idle_interval_s: float = IDLE_INTERVAL_S,
        supervisor: Supervisor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._publish = publish
        self._live = live
        self._clock = clock
        self._counts: dict[str, ScrapeCounts] = {}
        self._urls: dict[str, PageUrl] = {}
        self._busy = busy
        self._at_rest = at_rest
        self._resting: set[str] = set()
        self._idle_interval_s = idle_interval_s
        self.pace = (budget or ScrapeBudget()).new_pace()
        self._poller = Poller(
            self._scrape,
            interval_s=self._next_interval_s,
            is_due=self._is_due,
            task=BackgroundTask.SCRAPING,
            supervisor=supervisor,
        )

    @property
    def interval_s(self) -> float:
        """Between two reads of a page, as it is now."""
        return self._wanted_s() * self.pace.stretch

    def _wanted_s(self) -> float:
        return self._live.current.scrape_interval_s if self._busy() else self._idle_s()

    def _idle_s(self) -> float:
        """Short enough that what an engine at rest has said is known throughout."""
        settings = self._live.current
        idle_s = min(self._idle_interval_s, settings.scrape_stale_s / 2)
        return max(settings.scrape_interval_s, idle_s)

    def _next_interval_s(self) -> float:
        wanted_s = self._wanted_s()
        n_left_out = len(self._resting) * (1.0 - wanted_s / self._idle_s())
        return self.pace.ask(len(self._counts) - n_left_out, wanted_s)

    def _is_due(self, endpoint: Endpoint) -> bool:
        """Whether the page of *endpoint*, whose turn it is, may say something new."""
        address = endpoint.address
        if not self._at_rest(address):
            self._resting.discard(address)
            return True
        self._resting.add(address)
        passed_s = self._clock() - self._counts[address].asked_at_s
        # The turn that is nearest: the next one would be as late as this is early.
        return passed_s > self._idle_s() - self.interval_s / 2

    @property
    def counts(self) -> Mapping[str, ScrapeCounts]:
        """By address, for the endpoints scraped now."""
        return MappingProxyType(self._counts)

    def set_endpoints(self, endpoints: Iterable[Endpoint]) -> None:
        """Scrape these from now on; those that stay keep their counts."""
        scraped = [endpoint for endpoint in endpoints if endpoint.metrics_url is not None]
        self._counts = {e.address: self._counts.get(e.address, ScrapeCounts()) for e in scraped}
        self._urls = {e.address: self._url_of(e) for e in scraped}
        self._resting &= self._counts.keys()
        self._poller.set_endpoints(scraped)

    async def run(self) -> None:
        """Scrape until cancelled."""
        await self._poller.run()

    def _url_of(self, endpoint: Endpoint) -> PageUrl:
        known, whole = self._urls.get(endpoint.address), endpoint.metrics_url or ""
        if known is not None and known.serves(whole, endpoint.engine):
            return known
        return PageUrl(whole, endpoint.engine)

    async def _scrape(self, endpoint: Endpoint) -> None:
        counts = self._counts[endpoint.address]
        try:
            page = await self._page(endpoint, counts)
        except (EngineSilent, OSError, TimeoutError, ValueError) as error:
            counts.failed += 1
            counts.last_failure = str(error) or type(error).__name__
            return
        counts.succeeded += 1
        self._publish(endpoint.address, page.metrics, counts.asked_at_s)

    async def _page(self, endpoint: Endpoint, counts: ScrapeCounts) -> _ReadPage:
        """The page of *endpoint*, or a part of it that says as much.

        Raises:
            EngineSilent, OSError, TimeoutError: it could not be had.
            ValueError: it is no URL, or the answer is no page.
        """
        url = self._urls[endpoint.address]
        asked_at_s = counts.asked_at_s = self._clock()
        if (part := url.part(asked_at_s)) is not None:
            try:
                page = await self._ask(endpoint, part)
            except ValueError:
                url.refuse(asked_at_s)
            except (EngineSilent, OSError, TimeoutError):
                url.refuse(asked_at_s, was_silent=True)
                raise
            else:
                if url.suffices(page.names, page.n_bytes):
                    return page
                url.refuse(asked_at_s)
            counts.asked_at_s = self._clock()
        page = await self._ask(endpoint, url.whole)
        url.saw_whole(page.names, page.n_bytes)
        return page

    async def _ask(self, endpoint: Endpoint, url: str) -> _ReadPage:
        """What *url* answers; raises as `_page` does."""
        answer = await self._client.get(
            url,
            within_s=self._live.current.scrape_timeout_s,
            max_bytes=MAX_PAGE_BYTES,
            tls=endpoint.tls,
        )
        if answer.status != 200:
            raise ValueError(f"{url} answered {answer.status}")
        page, parsing_s = await _read(answer.body, endpoint.engine)
        self.pace.spent(answer.reading_s + parsing_s)
        return page


async def _read(page: bytes, engine: str) -> tuple[_ReadPage, float]:
    """What *page* says, and the CPU it took of this thread; the loop turns between its slices."""
    reader, start, took_s = PageReader(engine), 0, 0.0
    while True:
        began_s = time.thread_time()
        # A line longer than a slice is read whole.
        end = page.find(b"\n", start + SLICE_BYTES)
        if end < 0:
            break
        reader.feed(page[start:end])
        start = end + 1
        took_s += time.thread_time() - began_s
        await asyncio.sleep(0)
    reader.feed(page[start:])
    read = _ReadPage(reader.metrics(), reader.names, len(page))
    return read, took_s + time.thread_time() - began_s
