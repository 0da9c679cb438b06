"""Wire: what a connection asks of the world, so that it knows no socket and no loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol


class Cancellable(Protocol):
    """A task, or what is to be called later."""

    def cancel(self) -> object: ...


class Wire(Protocol):
    """What carries a connection's bytes, and its time."""

    def write(self, data: bytes) -> None: ...

    def close(self) -> None:
        """Once what was written has left."""

    def soon(self, call: Callable[[], None]) -> object:
        """Call it in a moment."""

    def later(self, after_s: float, call: Callable[[], None]) -> Cancellable:
        """Call it after so many seconds."""

    def run(
        self, work: Coroutine[Any, Any, None], done: Callable[[Exception | None], None]
    ) -> Cancellable:
        """Run *work* in a task of its own; *done* is told what it raised, however it ends."""

    def failed(self, error: Exception) -> None:
        """A service raised *error*, which is a bug: tell who looks after those."""
