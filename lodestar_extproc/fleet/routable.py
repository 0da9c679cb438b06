"""Routable: which endpoints may be given a request now.

It asks health and load, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.fleet.health import Health
from lodestar_extproc.fleet.health_state import HealthState
from lodestar_extproc.fleet.levels import columns_of_a_level
from lodestar_extproc.fleet.load import InFlightRequest, LoadTable
from lodestar_extproc.fleet.silence import Silence
from lodestar_extproc.request import Subset

TURN_S = 1e-3
"""How long one of several untried endpoints is offered: shorter than between most requests."""


class Routable:
    """Chooses among the members of a fleet; where none may be chosen, all may.

    Args:
        in_flight: by decision id; the fleet's own, which changes.

    Attributes:
        has_levels: not all members are of one level of priority.
    """

    def __init__(
        self,
        health: Health,
        load: LoadTable,
        silence: Silence,
        in_flight: Mapping[str, InFlightRequest],
    ) -> None:
        self._health, self._load, self._silence = health, load, silence
        self._in_flight = in_flight
        self._endpoints: tuple[Endpoint, ...] = ()
        self.has_levels = False

    def adopt(self, endpoints: tuple[Endpoint, ...]) -> None:
        """Choose among *endpoints* from now on; each has its place as its column."""
        self._endpoints = endpoints
        levels = {(e.level.priority, e.level.is_degraded) for e in endpoints}
        self.has_levels = len(levels) > 1

    def columns(
        self, at_s: float, subset: Subset | None, prompt: int | None, draw: float
    ) -> list[int] | None:
        """Columns that may be chosen; None for all. See `Fleet.snapshot`."""
        allowed = None
        if subset is not None:
            allowed = [i for i, e in enumerate(self._endpoints) if e.address in subset]
        if self.has_levels and allowed != []:
            members = range(len(self._endpoints)) if allowed is None else allowed
            # Those that have just come make no level look ill.
            tried = [i for i in members if not self._is(HealthState.JOINING, i, at_s)]
            allowed = columns_of_a_level(
                self._endpoints, tried or members, lambda column: self._is_up(column, at_s), draw
            )
        failed = () if prompt is None else self._health.failed_with(prompt, at_s)
        if self._health.all_healthy and not failed:
            return allowed
        columns = range(len(self._endpoints)) if allowed is None else allowed
        chosen = self._one_untried([i for i in columns if self._takes(i, at_s)], at_s)
        others = [i for i in chosen if self._endpoints[i].address not in failed]
        joining = [] if chosen else [i for i in columns if self._is(HealthState.JOINING, i, at_s)]
        return others or chosen or joining or allowed

    def _one_untried(self, columns: list[int], at_s: float) -> list[int]:
        """*columns* with one at most that nobody probes and that never answered.

        So a request that fails there is retried where others were served; which of them, the
        clock says, so that each has its turn.
        """
        untried = [i for i in columns if self._health.is_untried(self._endpoints[i].address)]
        if len(untried) < 2 or len(untried) == len(columns):
            return columns
        left_out = set(untried) - {untried[int(at_s / TURN_S) % len(untried)]}
        return [i for i in columns if i not in left_out]

    def _is(self, state: HealthState, column: int, at_s: float) -> bool:
        return self._health.state(self._endpoints[column].address, at_s) is state

    def _is_up(self, column: int, at_s: float) -> bool:
        """Whether the endpoint in *column* serves, perhaps on probation."""
        state = self._health.state(self._endpoints[column].address, at_s)
        return state in (HealthState.HEALTHY, HealthState.PROBATION)

    def _takes(self, column: int, at_s: float) -> bool:
        """Whether the endpoint in *column* may be given a request."""
        address = self._endpoints[column].address
        state = self._health.state(address, at_s)
        if state is not HealthState.PROBATION:
            return state is HealthState.HEALTHY
        left = self._silence.n_written_off(address, self._in_flight.values())
        left += sum(f.in_background for f in self._in_flight.values() if f.address == address)
        return bool(self._load.in_flight()[column] <= left)
