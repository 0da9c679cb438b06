"""A scraper at work on some endpoints, and what it published."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from typing import Any

from builders import live_settings
from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.fleet.engine_client import EngineClient
from lodestar_extproc.fleet.scraper import Publish, Scraper
from running import running


@asynccontextmanager
async def scraper_at_work(
    *endpoints: Endpoint,
    publish: Publish,
    interval_s: float,
    timeout_s: float = 1.0,
    clock: Callable[[], float] = time.monotonic,
    **more: Any,
) -> AsyncIterator[Scraper]:
    """Scrapes *endpoints* until the block ends."""
    settings = live_settings(
        scrape_interval_s=interval_s, scrape_timeout_s=timeout_s, scrape_stale_s=60.0
    )
    with closing(EngineClient()) as client:
        scraper = Scraper(client, publish, settings, clock=clock, **more)
        scraper.set_endpoints(endpoints)
        async with running(scraper.run()):
            yield scraper
