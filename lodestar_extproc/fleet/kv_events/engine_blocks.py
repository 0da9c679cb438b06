"""EngineBlocks: which blocks one engine's cache holds, as its events say, and how they follow.

It knows tokens and hashes of the engine's own; what prompts they stand for is the business of
`joined_prompt.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lodestar_extproc.fleet.kv_events.events import BlocksRemoved, BlocksStored
from lodestar_extproc.fleet.kv_events.joined_prompt import JoinedPrompt

MAX_BLOCKS = 1 << 18
"""Of one engine: four million tokens in blocks of 16, and some 50 MB here. Of more is not told."""


@dataclass(slots=True, eq=False)
class Segment:
    """Consecutive blocks that one event stored.

    Attributes:
        parent: what they follow; None for the beginning of a prompt.
        start_tokens: of a prompt, those before them.
        is_rooted: whether all blocks before them are known, back to the beginning.
        n_held: of its first blocks, those that the cache holds, each after the one before.
        at_s: when it was heard of.
        prompt: whose blocks they are; None where nobody knows.
        goes_on: others follow that look like more of the same prompt.
        n_counted_on: of those held, the first ones, which are not to be given up soon.
        is_new: nobody was found yet whose they are.
    """

    hashes: Sequence[int]
    parent: Segment | None
    start_tokens: int
    block_tokens: int
    is_rooted: bool
    n_held: int
    at_s: float
    prompt: JoinedPrompt | None = None
    is_new: bool = True
    goes_on: bool = False
    n_counted_on: int = 0

    @property
    def kept_tokens(self) -> int:
        """Of a prompt, those up to the last block that can be counted on."""
        return self.start_tokens + self.n_counted_on * self.block_tokens

    @property
    def end_tokens(self) -> int:
        """Of a prompt, those up to its end."""
        return self.start_tokens + len(self.hashes) * self.block_tokens

    def path(self) -> Iterator[Segment]:
        """This one and all before it, the last first."""
        segment: Segment | None = self
        while segment is not None:
            yield segment
            segment = segment.parent


@dataclass(slots=True)
class EngineBlocks:
    """All of one engine, by hash.

    Attributes:
        copies: beside the first, of blocks that are held more than once.
        block_tokens: of its blocks; 0 before any.
    """

    copies: dict[int, int] = field(default_factory=dict)
    block_tokens: int = 0
    _segments: dict[int, Segment] = field(default_factory=dict)
    # In the order in which the engine will give them up, as far as is known.
    _order: OrderedDict[Segment, None] = field(default_factory=OrderedDict)
    # Those of which less is counted on than is held, in that order.
    _doubtful: dict[Segment, None] = field(default_factory=dict)
    _groups: set[int] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self._segments)

    def store(self, event: BlocksStored, at_s: float) -> Segment | None:
        """Take in what is held now; returns it where any of it is new.

        Raises:
            OverflowError: they are more than are kept.
        """
        if not event.whole:  # such layers keep the end of a prompt only, and say nothing of it all
            self._groups.add(event.group)
        if event.group in self._groups or not event.hashes:
            return None
        segments = self._segments
        n_known = sum(each in segments for each in event.hashes)
        if not event.in_gpu:
            self._copy(event.hashes)
            return None
        if n_known == len(event.hashes):
            # A prompt's own beginning is told again where an engine reports what was found.
            if event.parent is not None:
                self._copy(event.hashes)
            return None
        self.block_tokens = event.block_tokens
        return self._new(event, at_s)

    def _new(self, event: BlocksStored, at_s: float) -> Segment:
        segments = self._segments
        if len(segments) + len(event.hashes) > MAX_BLOCKS:
            raise OverflowError(f"an engine of more than {MAX_BLOCKS} blocks")
        before = None if event.parent is None else segments.get(event.parent)
        start_tokens, rooted = 0, event.parent is None
        if before is not None:
            n_before = before.hashes.index(event.parent) + 1
            start_tokens = before.start_tokens + n_before * before.block_tokens
            rooted = before.is_rooted
            before.goes_on |= len(event.hashes) > 1 and n_before == len(before.hashes)
        made = Segment(
            event.hashes, before, start_tokens, event.block_tokens, rooted, len(event.hashes), at_s
        )
        for each in event.hashes:
            if each in segments:
                self.copies[each] = self.copies.get(each, 0) + 1
            segments[each] = made
        made.n_counted_on = made.n_held
        self._order[made] = None
        return made

    def touch(self, last: Segment) -> None:
        """A request whose prompt ends with *last* has ended: its end is given up first, but late.

        vLLM frees the blocks of a request when it ends, last first, and gives up first what was
        freed first.
        """
        for segment in last.path():
            segment.n_counted_on = segment.n_held
            self._doubtful.pop(segment, None)
            if segment in self._order:
                self._order.move_to_end(segment)

    def give_up(self, n_blocks: float) -> Iterator[Segment]:
        """Count on so many less, those that will be given up first; the segments they are of."""
        for segment in self._order:
            if n_blocks < 1:
                return
            n_left = max(segment.n_held - int(n_blocks), 0)
            n_blocks -= segment.n_held - n_left
            if n_left < segment.n_counted_on:
                segment.n_counted_on = n_left
                self._doubtful[segment] = None
                yield segment

    def count_on_again(self, n_blocks: float) -> Iterator[Segment]:
        """So many will be given up, and no more; the segments of which more is counted on now."""
        for segment in list(self._doubtful):
            n_left = max(segment.n_held - int(max(n_blocks, 0.0)), 0)
            n_blocks -= segment.n_held - n_left
            if n_left > segment.n_counted_on:
                segment.n_counted_on = n_left
                yield segment
            if segment.n_counted_on == segment.n_held:
                del self._doubtful[segment]

    def _copy(self, hashes: Sequence[int]) -> None:
        for each in hashes:
            if each in self._segments:
                self.copies[each] = self.copies.get(each, 0) + 1

    def remove(self, event: BlocksRemoved) -> set[Segment]:
        """Take in what is held no more; returns the segments that have lost blocks."""
        lost: set[Segment] = set()
        if event.group in self._groups:
            return lost
        for each in event.hashes:
            if (n_copies := self.copies.get(each, 0)) > 0:
                self._one_copy_less(each, n_copies)
                continue
            segment = self._segments.pop(each, None)
            if segment is None:
                continue
            n_held = segment.n_held
            # An engine gives up a prompt's end before its beginning: mostly the last one held.
            if n_held and segment.hashes[n_held - 1] == each:
                segment.n_held -= 1
                lost.add(segment)
            elif (place := segment.hashes.index(each)) < n_held:
                segment.n_held = place
                lost.add(segment)
        for segment in lost:
            segment.n_counted_on = min(segment.n_counted_on, segment.n_held)
            if not segment.n_held:
                self._order.pop(segment, None)
                self._doubtful.pop(segment, None)
        return lost

    def _one_copy_less(self, block: int, n_copies: int) -> None:
        if n_copies > 1:
            self.copies[block] = n_copies - 1
        else:
            del self.copies[block]
