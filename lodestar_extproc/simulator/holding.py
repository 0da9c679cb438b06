"""HeldArrivals: virtual requests that routers hold until it is their turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from lodestar_extproc.routing.admission import Ticket
from lodestar_extproc.routing.router import Router
from lodestar_extproc.simulator.arrival import VirtualRequest

LOOK_S = 0.05
"""Time changes what is predicted, too; a service looks oftener where nothing happens."""


class HeldArrival(NamedTuple):
    """A request whose router holds it."""

    number: int
    request: VirtualRequest
    router: Router


class HeldArrivals:
    """Asks routers for turns, and sends whose turn has come.

    Args:
        send: routes one, at the time given.
    """

    def __init__(self, send: Callable[[HeldArrival, Ticket], object]) -> None:
        self._send = send
        self._held: dict[Ticket, HeldArrival] = {}

    def __bool__(self) -> bool:
        return bool(self._held)

    def add(self, ticket: Ticket, arrival: HeldArrival) -> None:
        """Hold one more."""
        self._held[ticket] = arrival

    def look(self, at_s: float) -> None:
        """Send all whose turn has come."""
        for router in {held.router: None for held in self._held.values()}:
            while (ticket := router.admission.next_turn(at_s)) is not None:
                self._send(self._held.pop(ticket), ticket)
