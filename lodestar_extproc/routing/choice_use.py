"""ChoiceUse: whether Envoy goes where it is told, by what its access log says of each request.

An Envoy that chooses for itself answers from an endpoint that was not the first choice, and so does
one whose first attempt failed. Only the number of attempts tells the one from the other.
"""

from __future__ import annotations

from lodestar_extproc.routing.ended_request import EndedRequest

SURE_AFTER = 20
"""Choices used in a row, until it is believed again. With two endpoints, one that ignores them all
would go along so often by chance once in a million."""


class ChoiceUse:
    """One pool's.

    Attributes:
        in_doubt: a choice was not used lately: who served is then no sign of who failed.
    """

    def __init__(self) -> None:
        self.in_doubt = False
        self._used_in_a_row = 0

    def ended(self, request: EndedRequest) -> None:
        """A request ended."""
        if request.is_ignored:
            self.in_doubt, self._used_in_a_row = True, 0
        elif self.in_doubt and request.completion.served == request.decision.address:
            self._used_in_a_row += 1
            self.in_doubt = self._used_in_a_row < SURE_AFTER
