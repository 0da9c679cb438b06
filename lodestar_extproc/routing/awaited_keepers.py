"""AwaitedKeepers: requests for what nobody is known to keep, while somebody may be about to tell.

A client may go on from an answer as soon as it has its id, and so before the observer of that
answer, or the replica that decided on it, has said who keeps it. Any other engine has not got it.
"""

from __future__ import annotations

from typing import Protocol

from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.request import InferenceRequest, name_key

AWAITED_S = 0.25
"""The longest wait. What one replica hears, others know within 50 ms; a busy one takes longer. Half
of what Envoy waits for an answer of ours where nothing else is told."""


class Keepers(Protocol):
    """What is known of who keeps what; see `kept_answers.py`."""

    def knows(self, key: int) -> bool: ...

    def may_be_told(self) -> bool: ...


class AwaitedKeeper:
    """The place of one request.

    Attributes:
        came_at_s: when it was first asked for.
        limit_at_s: when it goes on, whoever is known.
    """

    __slots__ = ("came_at_s", "key", "limit_at_s")

    def __init__(self, key: int, at_s: float) -> None:
        self.key, self.came_at_s, self.limit_at_s = key, at_s, at_s + AWAITED_S


class AwaitedKeepers:
    """Holds the requests of one pool for a moment. Like `AdmissionQueue`, it is asked for turns."""

    def __init__(self, live: LiveSettings, keepers: Keepers) -> None:
        self._live = live
        self._keepers = keepers
        self._held: dict[AwaitedKeeper, None] = {}

    def is_owed(self, name: str) -> bool:
        """Whether nobody knows who keeps *name*, and somebody may tell in a moment."""
        return bool(name) and self._is_owed(name_key(name))

    def _is_owed(self, key: int) -> bool:
        if self._live.current.shadow:
            return False  # Envoy is told nobody, so nothing is to be waited for
        return not self._keepers.knows(key) and self._keepers.may_be_told()

    def offer(self, request: InferenceRequest, at_s: float) -> AwaitedKeeper | None:
        """Hold *request*; None where it may go at once."""
        keeping = request.keeping
        # The first turn of a conversation names what is not there yet.
        if keeping is None or keeping.continues is None or keeping.is_conversation:
            return None
        if not self._is_owed(keeping.continues):
            return None
        ticket = AwaitedKeeper(keeping.continues, at_s)
        self._held[ticket] = None
        return ticket

    def next_turn(self, at_s: float) -> AwaitedKeeper | None:
        """Whose keeper is known now, or who has waited for long; None where nobody's turn it is."""
        for ticket in self._held:
            if at_s >= ticket.limit_at_s or self._keepers.knows(ticket.key):
                del self._held[ticket]
                return ticket
        return None

    def withdraw(self, ticket: AwaitedKeeper) -> None:
        """Its client has left, or it goes on unasked. Idempotent."""
        self._held.pop(ticket, None)
