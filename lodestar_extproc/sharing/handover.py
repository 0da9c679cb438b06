"""Handover: what is heard of a request goes to the replica that decided on it.

Envoy balances the decision, the observer and the access log of one request each for itself, so
behind one cluster they reach different replicas. The decision's id says whose it is. What is ours,
or nobody's that we could know of, goes straight to our own routers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import StrEnum, auto
from typing import Protocol

from lodestar_extproc.completion import AnswerReport, Completion, FirstToken, KeptAnswer
from lodestar_extproc.policies.protocol import Policy
from lodestar_extproc.routing.ids import owner_of
from lodestar_extproc.routing.router import Router
from lodestar_extproc.routing.routers import Routers
from lodestar_extproc.sharing.handed import HandedEvent, Observed

MAX_WARNED = 1000
"""Replicas that cannot be reached, each warned of once; more are counted alone."""
CURE = (
    "list every replica in Envoy's cluster for this service, or name them by serve --peer, so that "
    "each can reach the others"
)
_log = logging.getLogger(__name__)


class HandoverResult(StrEnum):
    """What became of something heard of another replica's request."""

    HANDED = auto()
    """On its way to its owner."""
    RECEIVED = auto()
    """Came from another replica, about a request of ours."""
    UNREADABLE = auto()
    """Came from another replica, of a later version, or from somebody else."""
    LOST = auto()
    """Its owner cannot be reached, or does not take it fast enough."""


class HandoverListener(Protocol):
    """Who counts it: metrics."""

    def handed_over(self, result: HandoverResult) -> None: ...


class Ends(Protocol):
    """Where ends of our own requests are taken, each once what else there is to hear was heard."""

    def end(self, completion: Completion) -> None:
        """A request is over."""

    def observed(self, decision_id: str) -> None:
        """Nothing more will be told of the answer to this decision."""


class EndsAtOnce:
    """Holds none."""

    def __init__(self, routers: Routers) -> None:
        self._routers = routers

    def end(self, completion: Completion) -> None:
        """See `Ends`."""
        self._routers.complete(completion)

    def observed(self, decision_id: str) -> None:
        """See `Ends`."""


class Handover:
    """All routers of this replica, and the way to those of others.

    Args:
        post: sends an event to the replica that is named, or says False where it cannot.

    Attributes:
        ends: takes the ends of our requests that others heard.
    """

    def __init__(
        self,
        origin: str,
        routers: Routers,
        post: Callable[[str, HandedEvent], bool],
        listener: HandoverListener,
    ) -> None:
        self.origin = origin
        self.ends: Ends = EndsAtOnce(routers)
        self._routers = routers
        self._post = post
        self._listener = listener
        self._warned: set[str] = set()

    # -- what an exchange asks of all pools -------------------------------------------------------

    @property
    def headers(self) -> frozenset[str]:
        """See `Routers`."""
        return self._routers.headers

    def get(self, pool: str | None = None) -> Router:
        """See `Routers`."""
        return self._routers.get(pool)

    def override(
        self, pool: str | None = None, policy: str | None = None, cost: str | None = None
    ) -> Policy | None:
        """See `Routers`."""
        return self._routers.override(pool, policy, cost)

    # -- what is heard of answers -----------------------------------------------------------------

    def first_token(self, event: FirstToken) -> None:
        """Tell whose decision it was."""
        if self.is_ours(event.decision_id):
            self._routers.first_token(event)
        else:
            # What follows would take a message a chunk: it is not told.
            self._hand(event.decision_id, event._replace(watched=False))

    def progressed(self, decision_id: str, at_s: float) -> None:
        """Tell our own routers."""
        self._routers.progressed(decision_id, at_s)

    def report(self, event: AnswerReport) -> None:
        """Tell whose decision it was."""
        if self.is_ours(event.decision_id):
            self._routers.report(event)
        else:
            self._hand(event.decision_id, event)

    def complete(self, event: Completion) -> bool:
        """Tell whose decision it was; False where nobody was told."""
        own_id = event.decision_id or event.stream_id
        if self.is_ours(own_id):
            return self._routers.complete(event)
        return self._hand(own_id, event)

    def kept(self, event: KeptAnswer) -> None:
        """Tell whose decision it was: he knows whether it was asked to be kept."""
        if self.is_ours(event.decision_id):
            self._routers.kept(event)
        else:
            self._hand(event.decision_id, event)

    def draw_full_observation(self, decision_id: str) -> bool:
        """See `Routers`."""
        return self._routers.draw_full_observation(decision_id)

    def receive(self, event: HandedEvent | None) -> None:
        """Another replica heard this (None: it cannot be read); it is never handed on."""
        read = HandoverResult.UNREADABLE if event is None else HandoverResult.RECEIVED
        self._listener.handed_over(read)
        match event:
            case FirstToken():
                self._routers.first_token(event)
            case AnswerReport():
                self._routers.report(event)
            case KeptAnswer():
                self._routers.kept(event)
            case Completion():
                self.ends.end(event)
            case Observed():
                self.ends.observed(event.decision_id)

    def observed(self, decision_id: str) -> None:
        """Tell whose decision it was that nothing more will be told of its answer from here."""
        self._hand(decision_id, Observed(decision_id))

    def is_ours(self, own_id: str) -> bool:
        """Whether what has this id was decided on here, or by nobody that we could know of."""
        return owner_of(own_id) in (self.origin, "")

    def _hand(self, own_id: str, event: HandedEvent) -> bool:
        owner = owner_of(own_id)
        if self._post(owner, event):
            self._listener.handed_over(HandoverResult.HANDED)
            return True
        self._listener.handed_over(HandoverResult.LOST)
        if owner not in self._warned and len(self._warned) < MAX_WARNED:
            self._warned.add(owner)
            _log.warning(
                "heard of a request of replica %s, which cannot be told. Unless it has just "
                "stopped, it counts that request as open for too long and learns nothing of it: %s",
                owner,
                CURE,
            )
        return False
