"""StreamListener: who is told of streams and log entries."""

from __future__ import annotations

from typing import Protocol

from lodestar_extproc.extproc.access_log_service import LogListener
from lodestar_extproc.extproc.budget import Limit
from lodestar_extproc.extproc.events import Phase
from lodestar_extproc.extproc.stream_outcome import StreamOutcome


class StreamListener(LogListener, Protocol):
    """Who is told of streams and log entries: metrics."""

    def stream_opened(self) -> None: ...

    def message(self, phase: Phase) -> None: ...

    def stream_closed(self, outcome: StreamOutcome) -> None: ...

    def messages_repeated(self, n_messages: int) -> None:
        """So many messages of a stream came after the request they belong to had ended."""

    def body_over_budget(self, limit: Limit) -> None:
        """A body took too much to be read: its request is known by its size alone."""
