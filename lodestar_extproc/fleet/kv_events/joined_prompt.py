"""JoinedPrompt: a prompt of which it is known how many tokens an engine makes of it."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

UNSURE_BLOCKS, UNSURE_RATIO = 2, 0.05
"""Between two places that are known tokens are not of equal bytes: what is between is known to so
many blocks of ours, and so much of the way to the nearer place. A judgement."""


class KnownPlace(NamedTuple):
    """The same place in a prompt, in the engine's tokens and in our blocks of bytes."""

    tokens: float
    blocks: float


@dataclass(slots=True, eq=False)
class JoinedPrompt:
    """What was sent, and its length in the engine's tokens.

    Attributes:
        hashes: of its blocks of bytes.
        places: that are known, the first and the last of it among them, in their order.
        n_ended: how many requests had ended at its endpoint when it did.
    """

    hashes: Sequence[int]
    places: Sequence[KnownPlace]
    n_ended: int

    @property
    def prompt_tokens(self) -> float:
        """Of all of it."""
        return self.places[-1].tokens

    def before(self, tokens: float) -> Sequence[KnownPlace]:
        """Places within its first *tokens*."""
        return self.places[: max(1, bisect_left(self.places, (tokens,)))]

    def n_blocks(self, tokens: float) -> int:
        """Blocks of bytes that its first *tokens* fill."""
        return min(len(self.hashes), int(self._blocks(tokens)))

    def sure_blocks(self, tokens: float) -> int:
        """So many that its first *tokens* end before them."""
        return math.ceil(self._blocks(tokens) + self._unsure(tokens))

    def begins(self, hashes: Sequence[int], tokens: float) -> bool:
        """Whether its first *tokens* are those of another prompt too, as far as can be told."""
        n_same = min(int(self._blocks(tokens) - self._unsure(tokens)), len(self.hashes))
        if n_same <= 0:
            return True
        return n_same <= len(hashes) and hashes[n_same - 1] == self.hashes[n_same - 1]

    def _blocks(self, tokens: float) -> float:
        first, last = self._around(tokens)
        if last.tokens <= first.tokens:
            return last.blocks
        ratio = min((tokens - first.tokens) / (last.tokens - first.tokens), 1.0)
        return first.blocks + ratio * (last.blocks - first.blocks)

    def _unsure(self, tokens: float) -> float:
        blocks = self._blocks(tokens)
        nearest = min(abs(blocks - place.blocks) for place in self._around(tokens))
        return UNSURE_BLOCKS + UNSURE_RATIO * nearest

    def _around(self, tokens: float) -> tuple[KnownPlace, KnownPlace]:
        after = bisect_left(self.places, (tokens,), lo=1, hi=len(self.places) - 1)
        return self.places[after - 1], self.places[after]


def rising(places: Iterable[KnownPlace]) -> list[KnownPlace]:
    """Without those that are before the one before them."""
    rising = [KnownPlace(0.0, 0.0)]
    for place in places:
        if place.tokens > rising[-1].tokens and place.blocks > rising[-1].blocks:
            rising.append(place)
    return rising
