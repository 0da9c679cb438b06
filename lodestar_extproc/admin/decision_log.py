"""DecisionLog: the last decisions, why each was made, and what followed; never a prompt's text.

It listens to the routers and answers questions; it decides nothing and keeps nothing on disk.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from lodestar_extproc.admin.decision_json import explained, summary
from lodestar_extproc.decision import Decision
from lodestar_extproc.routing.ended_request import EndedRequest, ObservedFirstToken

CAPACITY = 256
"""Decisions kept, as many as the page asks for. A judgement: a few MiB with their candidates."""
MAX_HELD_BLOCKS = 256
"""Hashes of a longer prompt are let go when its request has ended. 16 KiB of text: most chats."""


@dataclass(slots=True)
class LoggedDecision:
    """One decision, and what its router has told of it until now."""

    decision: Decision
    first_token: ObservedFirstToken | None = None
    ended: EndedRequest | None = None


class DecisionLog:
    """The last *capacity* decisions, found by decision or request id.

    What is beyond that is let go when a request ends.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._by_id: OrderedDict[str, LoggedDecision] = OrderedDict()

    # -- what routers report ---------------------------------------------------------------------

    def decided(self, decision: Decision) -> None:
        """See `RouterListener`."""
        self._by_id[decision.decision_id] = LoggedDecision(decision)

    def first_token(self, decision: Decision, first_token: ObservedFirstToken) -> None:
        """See `RouterListener`."""
        logged = self._by_id.get(decision.decision_id)
        if logged is not None:
            logged.first_token = first_token

    def ended(self, request: EndedRequest) -> None:
        """See `RouterListener`."""
        # Not where one is made, which waits for it: what they hold takes a while to be let go.
        while len(self._by_id) > self._capacity:
            self._by_id.popitem(last=False)
        logged = self._by_id.get(request.decision.decision_id)
        if logged is None:
            return
        if len(request.decision.candidates.request.block_hashes) > MAX_HELD_BLOCKS:
            # Until now the router held them too.
            request = request.without_prompt()
            logged.decision = request.decision
        logged.ended = request

    # -- what is asked ---------------------------------------------------------------------------

    def last(self, limit: int, at_s: float) -> Iterator[dict[str, Any]]:
        """The last *limit* decisions, newest first, as plain JSON types; as of this moment."""
        newest_first = list(islice(reversed(self._by_id.values()), limit))
        return (summary(each.decision, each.first_token, each.ended, at_s) for each in newest_first)

    def explain(self, any_id: str, at_s: float) -> dict[str, Any] | None:
        """All that is known of the decision, or of the last one of the request, *any_id*."""
        logged = self._by_id.get(any_id)
        if logged is None and any_id:
            newest_first = reversed(self._by_id.values())
            logged = next(
                (each for each in newest_first if each.decision.request_id == any_id), None
            )
        if logged is None:
            return None
        return explained(logged.decision, logged.first_token, logged.ended, at_s)
