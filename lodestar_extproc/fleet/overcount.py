"""Overcount: finds requests that we count and their engine no longer has: their end was not heard.

It compares our count with what engines report; it gives nothing back itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lodestar_extproc.endpoint import FleetSnapshot
from lodestar_extproc.fleet.load import InFlightRequest

SETTLE_AFTER_S = 10.0
"""A request is looked at when it is so old, and given up when the engine has reported too few for
as long again. An access log comes within 1 s, a scrape within 2 s. A judgement."""


class Overcount:
    """For how long, and by how many at least, we count more at an endpoint than it reports.

    Requests of others only raise what an engine reports, so with several replicas one of them may
    find fewer, never more. An engine that never reported any is not believed.
    """

    def __init__(self) -> None:
        self._surplus: dict[str, tuple[int, float]] = {}
        self._reports_load: set[str] = set()

    def forget(self, address: str) -> None:
        """The endpoint has left."""
        self._surplus.pop(address, None)
        self._reports_load.discard(address)

    def look(self, in_flight: Mapping[str, InFlightRequest], reported: FleetSnapshot) -> list[str]:
        """Ids of requests that are over, the oldest of each endpoint; to be called once a second.

        Args:
            in_flight: ours by id, in the order in which they were sent.
            reported: of all endpoints, with what their engines say now.
        """
        old = _sent_before(in_flight, reported.at_s - SETTLE_AFTER_S)
        held = (reported.running_requests + reported.waiting_requests).tolist()
        over: list[str] = []
        for endpoint, n_held in zip(reported.endpoints, held, strict=True):
            if n_held > 0:
                self._reports_load.add(endpoint.address)
            ids = old.get(endpoint.address, [])
            over += ids[: self._n_over(endpoint.address, len(ids), n_held, reported.at_s)]
        return over

    def _n_over(self, address: str, n_old: int, n_held: float, at_s: float) -> int:
        """How many are over; 0 while that is not sure, or the engine's report is unknown (NaN)."""
        if not n_old > n_held or address not in self._reports_load:
            self._surplus.pop(address, None)
            return 0
        surplus = n_old - int(n_held)
        least, since_s = self._surplus.get(address, (surplus, at_s))
        least = min(least, surplus)
        if at_s - since_s < SETTLE_AFTER_S:
            self._surplus[address] = least, since_s
            return 0
        del self._surplus[address]
        return least


def _sent_before(in_flight: Mapping[str, InFlightRequest], at_s: float) -> dict[str, list[str]]:
    """Ids of the requests sent before *at_s*, oldest first, by address."""
    old: dict[str, list[str]] = {}
    for decision_id, sent in _until(in_flight.items(), at_s):
        old.setdefault(sent.address, []).append(decision_id)
    return old


def _until(
    items: Iterable[tuple[str, InFlightRequest]], at_s: float
) -> Iterable[tuple[str, InFlightRequest]]:
    for item in items:
        if item[1].dispatched_at_s >= at_s:
            return
        yield item
