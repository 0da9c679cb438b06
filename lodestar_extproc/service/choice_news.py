"""ChoiceNews: says once in the log that Envoy does not go where it is told."""

from __future__ import annotations

import logging

from lodestar_extproc.decision import Decision
from lodestar_extproc.routing.ended_request import EndedRequest, ObservedFirstToken

_log = logging.getLogger(__name__)


class ChoiceNews:
    """A `RouterListener` of one pool."""

    def __init__(self) -> None:
        self._told = False

    def decided(self, decision: Decision) -> None:
        """See `RouterListener`: nothing is known yet."""

    def first_token(self, decision: Decision, first_token: ObservedFirstToken) -> None:
        """See `RouterListener`: whether it was a retry is known at the end."""

    def ended(self, request: EndedRequest) -> None:
        """See `RouterListener`."""
        if not request.is_ignored or self._told:
            return
        self._told = True
        decision = request.decision
        _log.warning(
            "pool %s: Envoy sent a request to %s, at its first attempt, where %s was chosen. If it "
            "does so with many (lodestar_ignored_choices_total), its cluster does not follow our "
            "choice: `lodestar-extproc check` looks for the reason. An endpoint that Envoy itself "
            "holds unhealthy is passed over in the same way: see /clusters on its admin port",
            decision.pool,
            request.completion.served,
            decision.address,
        )
