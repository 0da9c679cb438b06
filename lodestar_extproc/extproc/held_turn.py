"""HeldTurn: a request that is held until it is best sent."""

from __future__ import annotations

from typing import NamedTuple

from lodestar_extproc.extproc.events import Content, RequestEvent
from lodestar_extproc.routing.admission import AdmissionQueue, Ticket


class HeldTurn(NamedTuple):
    """What an exchange holds: its place in the queue, and what it is to route then.

    Attributes:
        event: the last message of the request.
        content, n_bytes: its body, None where that is not sent here, and how long it is.
    """

    ticket: Ticket
    queue: AdmissionQueue
    event: RequestEvent
    content: Content | None
    n_bytes: int
