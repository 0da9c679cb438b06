"""EndpointNews: says in the log when endpoints of a pool turn down or up, or pages come late.

What happens again and again is said once.
"""

from __future__ import annotations

import logging

from lodestar_extproc.fleet.health_state import HealthState
from lodestar_extproc.fleet.scraper import Scraper
from lodestar_extproc.routing.router import Router

STRETCHED = 1.25
"""A longer interval than this times what was asked for is worth a line. A judgement."""
_log = logging.getLogger(__name__)


class EndpointNews:
    """What is to be told of the endpoints of *router*."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._all_down = False
        self._is_stretched = False

    def probed(self, address: str, problem: str, at_s: float) -> None:
        """Take an active probe's answer to the fleet, and say what that changes."""
        fleet = self._router.fleet
        was_down = fleet.health.state(address, at_s) is HealthState.DOWN
        fleet.record_probe(address, not problem, at_s)
        is_down = fleet.health.state(address, at_s) is HealthState.DOWN
        if was_down == is_down or all(e.address != address for e in fleet.endpoints):
            return
        if is_down:
            _log.warning("pool %s: endpoint %s is down: %s", self._router.pool, address, problem)
        else:
            _log.warning("pool %s: endpoint %s is up again", self._router.pool, address)
        self._tell_if_all_down(at_s, problem)

    def _tell_if_all_down(self, at_s: float, problem: str) -> None:
        fleet = self._router.fleet
        states = [fleet.health.state(e.address, at_s) for e in fleet.endpoints]
        all_down = all(state is HealthState.DOWN for state in states)
        if all_down and not self._all_down:
            _log.error(
                "pool %s: all %d endpoints are down: requests go to any of them. The last one: %s. "
                "If they do serve, their health is elsewhere: see health_path, and whether "
                "engines are reached by TLS",
                self._router.pool,
                len(states),
                problem,
            )
        self._all_down = all_down

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
