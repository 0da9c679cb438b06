"""Failing: endpoints that this replica found to fail, for the others, and those that they found."""

from __future__ import annotations

from lodestar_extproc.fleet.fleet import Fleet
from lodestar_extproc.fleet.health_state import HealthState

_OUT = (HealthState.EJECTED, HealthState.COOLING)


class Failing:
    """Tells of each endpoint once, when it is taken out; what others told is not told on."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._known: frozenset[str] = frozenset()

    def news(self, at_s: float) -> frozenset[str]:
        """Those that were taken out here since the last call."""
        health = self._fleet.health
        if health.all_healthy and not self._known:
            return self._known
        addresses = [endpoint.address for endpoint in self._fleet.endpoints]
        out = frozenset(a for a in addresses if health.state(a, at_s) in _OUT)
        news, self._known = out - self._known, out
        return news

    def heard(self, address: str, at_s: float) -> None:
        """Another replica took it out: requests there fail."""
        if address not in self._known:
            self._fleet.health.failed(address, at_s)
            self._known |= {address}
