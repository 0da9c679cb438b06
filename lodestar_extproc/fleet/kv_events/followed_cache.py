"""FollowedCache: what one engine's events say of the prompts that were sent there.

We know bytes of prompts, the engine blocks of tokens. They are joined request by request: the
blocks that were stored between its dispatch and its end, that follow what it shares with others,
and that end where its length says, are its own. From then on it is known exactly which part of the
prompt is given up, and how many tokens a match of so many bytes is.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lodestar_extproc.fleet.kv_events.corrections import (
    Correction,
    Cut,
    FollowingCounts,
    Length,
    StillThere,
    Unheld,
)
from lodestar_extproc.fleet.kv_events.engine_blocks import EngineBlocks, Segment
from lodestar_extproc.fleet.kv_events.events import BlocksRemoved, BlocksStored
from lodestar_extproc.fleet.kv_events.joined_prompt import JoinedPrompt, KnownPlace, rising
from lodestar_extproc.fleet.kv_events.joining import (
    SentPrompt,
    first_own,
    is_generated,
    length_tokens,
    new_tokens,
    stores_any,
)
from lodestar_extproc.fleet.kv_events.own_blocks import OwnBlocks
from lodestar_extproc.fleet.kv_events.token_rate import TokenRate
from lodestar_extproc.request import BLOCK_BYTES, InferenceRequest

JOIN_WITHIN_S = 2.0
"""Events and ends come by different ways: an access log takes a second."""
KNOWN_RATIO = 0.9
"""Of a full cache, what an engine has told of when its index need not guess what it gives up: some
of the memory is for blocks that are not full. A judgement."""
MAX_WAITING = 1024
"""Requests and segments each that wait to be joined: what came in some seconds."""
MAX_PROVED = 1 << 14
"""Places of prompts whose tokens are known: 2 MB."""


class _Waiting(NamedTuple):
    """Whose own blocks have not been found yet; not looked for after *until_s*."""

    prompt: SentPrompt
    until_s: float
    n_ended: int


class FollowedCache:
    """Asks nobody and changes nobody's index: it returns corrections."""

    def __init__(self, counts: FollowingCounts) -> None:
        self._counts = counts
        self._blocks = EngineBlocks()
        self._new: deque[Segment] = deque(maxlen=MAX_WAITING)
        self._fresh: list[Segment] = []
        self._waiting: deque[_Waiting] = deque(maxlen=MAX_WAITING)
        self._unjoined: deque[tuple[int, Sequence[int]]] = deque(maxlen=MAX_WAITING)
        self._in_flight: dict[int, SentPrompt] = {}
        self._lost: set[Segment] = set()
        self._n_ended = 0
        self._rate = TokenRate()
        self._capacity_tokens: float | None = None
        self._proved: OrderedDict[int, float] = OrderedDict()

    def begin_anew(self) -> None:
        """The engine's cache is empty; what is in flight, and what tokens are, stays known."""
        self._blocks = EngineBlocks()
        self._new.clear()
        self._fresh.clear()
        self._unjoined.clear()
        self._lost.clear()

    def __len__(self) -> int:
        """Blocks that the engine holds."""
        return len(self._blocks)

    def knows(self, capacity_tokens: float) -> bool:
        """Whether it has heard of nearly all that a full cache of that size holds."""
        return len(self._blocks) * self._blocks.block_tokens >= KNOWN_RATIO * capacity_tokens

    # -- what a decision reads ------------------------------------------------------------------

    def tokens(self, request: InferenceRequest, n_blocks: int) -> float:
        """Tokens that so many blocks of *request* are, in whole blocks of the engine's."""
        if not n_blocks:
            return 0.0
        tokens = self._proved.get(request.block_hashes[n_blocks - 1])
        if tokens is None:
            tokens = n_blocks * (self._rate.per_block or request.tokens_per_block)
        # The last one is always computed.
        tokens = min(tokens, max(request.prompt_tokens - 1.0, 0.0))
        size = self._blocks.block_tokens
        return tokens // size * size if size else tokens

    # -- what is sent there ---------------------------------------------------------------------

    def sent(self, prompt: SentPrompt, capacity_tokens: float | None) -> list[Correction]:
        """It is in flight there, whose cache holds so much: what will be given up for it.

        An engine gives up as much as it needs, when a prompt's turn has come. Who is sent there
        before finds it no more either, for prompts are taken in turn.
        """
        self._in_flight[id(prompt.request)] = prompt
        self._capacity_tokens = capacity_tokens
        given_up = self._blocks.give_up(self._n_too_many())
        return [each for segment in given_up for each in self._given_up(segment)]

    def _n_too_many(self) -> float:
        """Blocks that will be given up for what is in flight."""
        size = self._blocks.block_tokens
        if not size or self._capacity_tokens is None:
            return 0.0
        n_new = sum(map(new_tokens, self._in_flight.values())) / size
        n_to_come = max(n_new - self._stored_in_flight(), 0.0)
        # The last one of each is not full, and so not told of.
        n_wanted = len(self._blocks) + len(self._in_flight) + n_to_come
        return n_wanted - self._capacity_tokens / size

    def _found_again(self) -> list[Correction]:
        """What was to be given up for what has ended, and was not."""
        again = self._blocks.count_on_again(self._n_too_many())
        found = ((s.prompt, s.kept_tokens) for s in again if s.prompt is not None)
        return [StillThere(prompt.hashes, prompt.n_blocks(tokens)) for prompt, tokens in found]

    def _stored_in_flight(self) -> int:
        """Blocks of what is in flight that are stored already, as far as can be told."""
        if not self._in_flight:
            return 0
        oldest_s = min(each.dispatched_at_s for each in self._in_flight.values())
        n_stored = 0
        for segment in reversed(self._new):
            if segment.at_s < oldest_s:
                break
            n_stored += len(segment.hashes) * segment.is_new
        return n_stored

    def never_came(self, request: InferenceRequest) -> None:
        """It was not computed there."""
        self._in_flight.pop(id(request), None)

    def ended(self, prompt: SentPrompt, at_s: float) -> list[Correction]:
        """It has ended: find out which blocks are its own."""
        self._in_flight.pop(id(prompt.request), None)
        self._n_ended += 1
        self._compare(prompt)
        if not prompt.request.block_hashes:
            return []
        segment = self._own(prompt, reversed(self._new))
        corrections: list[Correction] = []
        if segment is not None:
            corrections = self._joined(prompt, segment, self._n_ended)
        elif stores_any(prompt, self._blocks.block_tokens):
            self._waiting.append(_Waiting(prompt, at_s + JOIN_WITHIN_S, self._n_ended))
        return corrections + self._found_again()

    def _compare(self, prompt: SentPrompt) -> None:
        if prompt.cached_tokens is not None and prompt.prompt_tokens:
            error_tokens = abs(prompt.expected_tokens - prompt.cached_tokens)
            self._counts.error_tokens += error_tokens
            self._counts.compared_tokens += prompt.prompt_tokens

    # -- what the engine says -------------------------------------------------------------------

    def take(self, event: BlocksStored | BlocksRemoved, at_s: float) -> None:
        """One event; `settle` is to follow.

        Raises:
            OverflowError: it holds more than can be followed.
        """
        if isinstance(event, BlocksStored):
            made = self._blocks.store(event, at_s)
            if made is not None and made.is_rooted and not is_generated(made):
                self._new.append(made)
                self._fresh.append(made)
            return
        self._lost |= self._blocks.remove(event)

    def settle(self, at_s: float) -> list[Correction]:
        """After some events: what follows from them, and from what waited for them."""
        lost, self._lost = self._lost, set()
        corrections = [each for segment in lost for each in self._given_up(segment)]
        fresh, self._fresh = self._fresh, []
        return corrections + self._join(at_s, fresh)

    def _given_up(self, segment: Segment) -> list[Correction]:
        prompt = segment.prompt
        if prompt is None:
            return []
        corrections: list[Correction] = [self._cut(prompt, segment.kept_tokens)]
        # What ended before was given up before.
        while self._unjoined and self._unjoined[0][0] < prompt.n_ended:
            corrections.append(Unheld(self._unjoined.popleft()[1]))
        return corrections

    def _cut(self, prompt: JoinedPrompt, tokens: float) -> Cut:
        n_kept = prompt.n_blocks(tokens)
        if n_kept:
            self._prove(prompt.hashes[n_kept - 1], tokens)
        return Cut(prompt.hashes, n_kept, prompt.sure_blocks(tokens))

    def _prove(self, block: int, tokens: float) -> None:
        self._proved[block] = tokens
        self._proved.move_to_end(block)
        if len(self._proved) > MAX_PROVED:
            self._proved.popitem(last=False)

    # -- which blocks are whose -----------------------------------------------------------------

    def _join(self, at_s: float, fresh: Sequence[Segment]) -> list[Correction]:
        """Find their own among the *fresh* for all that wait; who has waited too long is left."""
        corrections: list[Correction] = []
        for _ in range(len(self._waiting)):
            waiting = self._waiting.popleft()
            prompt, until_s, n_ended = waiting
            # At last among all: for what was another's then may be nobody's now.
            segment = self._own(prompt, reversed(fresh if at_s < until_s else self._new))
            if segment is not None:
                corrections += self._joined(prompt, segment, n_ended)
            elif at_s < until_s:
                self._waiting.append(waiting)
            else:
                self._counts.unjoined += 1
                self._unjoined.append((n_ended, prompt.request.block_hashes))
        return corrections

    def _own(self, prompt: SentPrompt, newest_first: Iterable[Segment]) -> Segment | None:
        """The last of its blocks' segments."""
        sought = [*self._in_flight.values(), *(each.prompt for each in self._waiting), prompt]
        own_blocks = OwnBlocks(sought, self._new, self._rate.per_block)
        return own_blocks.end_of(prompt, newest_first)

    def _joined(self, ended: SentPrompt, segment: Segment, n_ended: int) -> list[Correction]:
        """These are its blocks."""
        self._counts.joined += 1
        self._blocks.touch(segment)
        request, size = ended.request, segment.block_tokens
        by_bytes = length_tokens(ended, self._rate.per_block)
        tokens = ended.prompt_tokens or min(
            max(by_bytes, segment.end_tokens), segment.end_tokens + size - 1.0
        )
        if request.is_plain and not request.n_media:
            self._rate.learn(segment.end_tokens + size / 2, request.prompt_bytes / BLOCK_BYTES)
        first = first_own(segment, ended)
        places = self._places(ended, first, tokens)
        prompt = JoinedPrompt(request.block_hashes, places, n_ended)
        self._prove(request.block_hashes[-1], tokens)
        corrections = self._mark(prompt, first, segment)
        if ended.prompt_tokens is None:  # its last block is half full, on average
            corrections.append(Length(request, segment.end_tokens + size / 2))
        return corrections

    def _places(
        self, ended: SentPrompt, first: Segment, prompt_tokens: float
    ) -> Sequence[KnownPlace]:
        """What is known of it: its beginning, as of those it follows, where it parts, its end."""
        start_tokens, size = first.start_tokens, first.block_tokens
        before = None if first.parent is None else first.parent.prompt
        places = [KnownPlace(0.0, 0.0)] if before is None else [*before.before(start_tokens)]
        found_tokens = start_tokens if ended.cached_tokens is None else ended.cached_tokens
        if ended.found_blocks and abs(found_tokens - ended.expected_tokens) <= 2 * size:
            self._prove(ended.request.block_hashes[ended.found_blocks - 1], found_tokens)
            parted = KnownPlace(found_tokens + size / 2, ended.found_blocks + 0.5)
            places.append(parted)
        end = KnownPlace(prompt_tokens, ended.request.prompt_bytes / BLOCK_BYTES)
        inner = [place for place in places if place < end and place.blocks < end.blocks]
        return rising([*inner, end])

    def _mark(self, prompt: JoinedPrompt, first: Segment, last: Segment) -> list[Correction]:
        """All blocks up to *last* are *prompt*'s, stored for it from *first* on.

        What of them is given up already is told.
        """
        corrections: list[Correction] = []
        upto_tokens, lost_tokens = last.end_tokens, None
        for segment in last.path():
            if segment.start_tokens >= first.start_tokens:
                segment.is_new = False
            if segment.end_tokens == upto_tokens:  # and none of another prompt's
                segment.prompt = prompt
            if segment.kept_tokens < upto_tokens:
                lost_tokens = segment.kept_tokens
            upto_tokens = segment.start_tokens
        if lost_tokens is not None:
            corrections.append(self._cut(prompt, lost_tokens))
        return corrections
