"""ToldStates: what was last told of each thing, so that each change is told, and no flutter."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

AT_ONCE = 4
"""Changes of one thing that are told as they come: down, up, down, up."""
ONE_PER_S = 0.05
"""After these, one in 20 s. A judgement: a reader sees that it flutters, and how it ends."""


@dataclass(slots=True)
class _Told:
    state: Hashable
    left: float
    at_s: float


class ToldStates:
    """A change that comes too soon after others is not lost: it is told later if it still holds."""

    def __init__(self) -> None:
        self._told: dict[Hashable, _Told] = {}

    def begin(self, key: Hashable, state: Hashable, at_s: float) -> None:
        """Take *state* as known to all."""
        self._told[key] = _Told(state, AT_ONCE, at_s)

    def knows(self, key: Hashable) -> bool:
        """Whether anything was told of *key*."""
        return key in self._told

    def of(self, key: Hashable) -> Hashable:
        """What was last told of *key*; None for nothing."""
        told = self._told.get(key)
        return None if told is None else told.state

    def turns(self, key: Hashable, state: Hashable, at_s: float) -> bool:
        """Whether *state* is to be told now; it then counts as told."""
        told = self._told.get(key)
        if told is None:
            self.begin(key, state, at_s)
            return True
        told.left = min(float(AT_ONCE), told.left + ONE_PER_S * (at_s - told.at_s))
        told.at_s = at_s
        if told.state == state or told.left < 1.0:
            return False
        told.state, told.left = state, told.left - 1.0
        return True

    def forget(self, key: Hashable) -> None:
        """There is no such thing any more."""
        self._told.pop(key, None)
