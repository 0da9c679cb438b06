"""RouterListener: who is told what happened to requests. Listeners: all of a router's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from lodestar_extproc.decision import Decision
from lodestar_extproc.routing.ended_request import EndedRequest, ObservedFirstToken


class RouterListener(Protocol):
    """Who is told what happened: metrics, the journal, the dashboard.

    Each is told all that it needs with each word: it need not remember a request by its id.
    """

    def decided(self, decision: Decision) -> None: ...

    def first_token(self, decision: Decision, first_token: ObservedFirstToken) -> None:
        """Once at most for a decision, and before its end."""

    def ended(self, request: EndedRequest) -> None:
        """Once for every decision: the whole of what became of it."""


class Listeners:
    """All who are told; a listener too."""

    def __init__(self, listeners: Iterable[RouterListener] = ()) -> None:
        self._all = tuple(listeners)

    def add(self, listener: RouterListener) -> None:
        """Tell it, too, from now on."""
        self._all += (listener,)

    def decided(self, decision: Decision) -> None:
        for listener in self._all:
            listener.decided(decision)

    def first_token(self, decision: Decision, first_token: ObservedFirstToken) -> None:
        for listener in self._all:
            listener.first_token(decision, first_token)

    def ended(self, request: EndedRequest) -> None:
        for listener in self._all:
            listener.ended(request)
