"""ExpectedFirstTokens: first tokens that nobody will see, taken as given when they are due."""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from lodestar_extproc.fleet.load import InFlightRequest, LoadTable


class ExpectedFirstTokens:
    """Lets requests go on to generating by the clock.

    Args:
        in_flight: by id; whoever is in there no more is left out.
    """

    def __init__(self, load: LoadTable, in_flight: Mapping[str, InFlightRequest]) -> None:
        self._load = load
        self._in_flight = in_flight
        self._due: list[tuple[float, str]] = []

    def expect(self, decision_id: str, due_at_s: float) -> None:
        """Take the first token of that request as given at *due_at_s*."""
        heapq.heappush(self._due, (due_at_s, decision_id))

    def take_due(self, at_s: float) -> None:
        """Those that were due until *at_s* have come."""
        while self._due and self._due[0][0] <= at_s:
            due_at_s, decision_id = heapq.heappop(self._due)
            sent = self._in_flight.get(decision_id)
            if sent is not None and sent.first_token_at_s is None:
                self._load.end_prefill(decision_id, sent)
                self._load.start_decode(sent, due_at_s)
