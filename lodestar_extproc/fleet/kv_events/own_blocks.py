"""OwnBlocks: which of the segments that an engine has stored ends one prompt's own blocks.

It weighs only: what follows from a choice is its owner's business.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Reversible, Sequence

from lodestar_extproc.fleet.kv_events.engine_blocks import Segment
from lodestar_extproc.fleet.kv_events.joining import (
    SentPrompt,
    begins_answer,
    mismatch_of,
    stores_any,
)

TURN_COST, TURN_COST_AT_FIRST = 0.05, 0.15
"""Of each place that a segment is off its prompt's turn: engines compute prompts in the order in
which they come. At first what bytes say of tokens may be off by half, and turns count for more.
What was found whole in a cache, and what others send, has no place among them. Of eight recorded
runs without usage, by settings of 1.5 to 4 bytes a token where 1.85 was true, these had the least
errors, from 0 to 0.4."""


class OwnBlocks:
    """Of some prompts at one moment.

    Args:
        sought: prompts whose blocks have not been found.
        stored: segments in their order, from before the first of them was sent.
        tokens_per_block: of bytes, as prompts before have shown; None where too few have.
    """

    def __init__(
        self,
        sought: Sequence[SentPrompt],
        stored: Reversible[Segment],
        tokens_per_block: float | None,
    ) -> None:
        self._sought = sought
        self._stored = stored
        self._tokens_per_block = tokens_per_block

    def end_of(self, prompt: SentPrompt, newest_first: Iterable[Segment]) -> Segment | None:
        """The last segment of its own; the earliest of those that fit equally well.

        None where none fits, or the one that does fits another better.
        """
        # Its usage says it all.
        guessed = prompt.prompt_tokens is None
        turns = _Turns(self._sought, self._stored) if guessed else _NO_TURNS
        best, least = None, math.inf
        for segment in newest_first:
            if segment.at_s < prompt.dispatched_at_s:
                break
            mismatch = self._mismatch(segment, prompt, turns)
            if mismatch <= least and mismatch < math.inf:
                best, least = segment, mismatch
        if best is None or (guessed and self._fits_another(best, least, prompt, turns)):
            return None
        return best

    def _fits_another(
        self, segment: Segment, mismatch: float, own: SentPrompt, turns: _Turns
    ) -> bool:
        return any(
            other.dispatched_at_s <= segment.at_s
            and self._mismatch(segment, other, turns) < mismatch
            for other in self._sought
            if other is not own
        )

    def _mismatch(self, segment: Segment, prompt: SentPrompt, turns: _Turns) -> float:
        known = self._tokens_per_block
        off_turn = turns.places_off(segment, prompt)
        off = off_turn * (TURN_COST_AT_FIRST if known is None else TURN_COST)
        return mismatch_of(segment, prompt, known) + off


class _Turns:
    """Prompts in the order in which they were sent, and segments as they were stored."""

    def __init__(self, sought: Sequence[SentPrompt], stored: Reversible[Segment]) -> None:
        self._prompts: dict[SentPrompt, int] = {}
        self._segments: dict[Segment, int] = {}
        oldest_s = min((each.dispatched_at_s for each in sought), default=math.inf)
        ends: list[Segment] = []
        for segment in reversed(stored):
            if segment.at_s < oldest_s:
                break
            if segment.is_new and not segment.goes_on and not begins_answer(segment):
                ends.append(segment)
        if not ends:
            return
        size = ends[0].block_tokens
        storing = [each for each in sought if stores_any(each, size)]
        in_turn = sorted(storing, key=lambda each: each.dispatched_at_s)
        self._prompts = {each: place for place, each in enumerate(in_turn)}
        self._segments = {each: place for place, each in enumerate(reversed(ends))}

    def places_off(self, segment: Segment, prompt: SentPrompt) -> int:
        """That segment is from that prompt's turn; 0 where one has no place."""
        at, of = self._segments.get(segment), self._prompts.get(prompt)
        return 0 if at is None or of is None else abs(at - of)


_NO_TURNS = _Turns((), ())
