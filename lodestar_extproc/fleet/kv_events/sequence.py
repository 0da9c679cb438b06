"""EventSequence: whether a message follows the one before, was missed, or is of an engine anew.

An engine numbers its messages from 0 on, and begins anew when it restarts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class Place(Enum):
    """What a message is to those before it."""

    NEXT = auto()
    KNOWN = auto()
    """It was read before: it came live and was said again."""
    AFTER_GAP = auto()
    """Some between were missed."""
    RESTARTED = auto()
    """The engine has begun anew; its cache was empty then."""


@dataclass(slots=True)
class EventSequence:
    """Of one engine.

    Attributes:
        last: number of the last message that was read; None before any.
        last_at_s: when it was made, by the engine's clock.
    """

    last: int | None = None
    last_at_s: float = 0.0

    def place(self, number: int, at_s: float) -> Place:
        """What message *number*, made at *at_s*, is."""
        last = self.last
        if last is None or number == last + 1:
            # Also of an engine that restarted and has told exactly as much: see `confirms`.
            return Place.NEXT
        if number > last + 1:
            return Place.AFTER_GAP
        return Place.RESTARTED if at_s > self.last_at_s else Place.KNOWN

    def confirms(self, number: int, at_s: float) -> bool:
        """Whether message *number*, said again, is the one that was read last."""
        return number == self.last and at_s == self.last_at_s

    def read(self, number: int, at_s: float) -> None:
        """It was."""
        self.last, self.last_at_s = number, at_s

    def begin(self) -> None:
        """Nothing was read."""
        self.last, self.last_at_s = None, 0.0
