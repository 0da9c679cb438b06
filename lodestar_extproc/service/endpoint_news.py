"""EndpointNews: passes on what probes find, and says in the log when pages come late.

What follows for an endpoint is told as a change (`events/endpoint_changes.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from lodestar_extproc.fleet.scraper import Scraper
from lodestar_extproc.routing.router import Router

STRETCHED = 1.25
"""A longer interval than this times what was asked for is worth a line. A judgement."""
Found = Callable[[str, str], None]
_log = logging.getLogger(__name__)


class EndpointNews:
    """What is to be told of the endpoints of *router*.

    Args:
        found: told what a probe of an address found wrong.
    """

    def __init__(self, router: Router, found: Found = lambda _address, _problem: None) -> None:
        self._router = router
        self._found = found
        self._is_stretched = False

    def probed(self, address: str, problem: str, at_s: float) -> None:
        """Take an active probe's answer to the fleet, and tell what it found wrong."""
        if problem:
            self._found(address, problem)
        self._router.fleet.record_probe(address, not problem, at_s)

    def paced(self, scraper: Scraper) -> None:
        """Say where pages are read less often than was asked for, and when that is over."""
        stretch = scraper.pace.stretch
        if stretch >= STRETCHED and not self._is_stretched:
            self._is_stretched = True
            _log.warning(
                "pool %s: the metric pages of %d endpoints take %.2g ms each, more than the budget "
                "of a fifth of a core at the interval asked for: they are read every %.2g s. Set "
                "scrape_interval_s so, or fewer metrics in the engines; beyond scrape_stale_s (%g) "
                "own counts serve alone",
                self._router.pool,
                len(scraper.counts),
                1e3 * scraper.pace.scrape_s,
                scraper.interval_s,
                self._router.settings.scrape_stale_s,
            )
        elif stretch <= 1.0 and self._is_stretched:
            self._is_stretched = False
            _log.info("pool %s: metric pages are read as often as asked for", self._router.pool)
