"""HeldTurn: a request that is held until it is best sent."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple, Protocol

from lodestar_extproc.extproc.events import Content, RequestEvent


class TurnTicket(Hashable, Protocol):
    """The place of one request in a queue."""

    @property
    def came_at_s(self) -> float: ...

    @property
    def limit_at_s(self) -> float: ...


class TurnQueue(Hashable, Protocol):
    """Holds requests, and says whose turn it is; see `routing/admission.py`."""

    def next_turn(self, at_s: float) -> TurnTicket | None: ...

    def withdraw(self, ticket: Any) -> None: ...


class HeldTurn(NamedTuple):
    """What an exchange holds: its place in the queue, and what it is to route then.

    Attributes:
        event: the last message of the request.
        content, n_bytes: its body, None where that is not sent here, and how long it is.
    """

    ticket: TurnTicket
    queue: TurnQueue
    event: RequestEvent
    content: Content | None
    n_bytes: int
