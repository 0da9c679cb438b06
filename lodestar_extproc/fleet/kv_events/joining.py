"""How far the blocks that an engine has stored look like those of a request that was sent there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lodestar_extproc.fleet.kv_events.engine_blocks import Segment
from lodestar_extproc.request import InferenceRequest

LENGTH_TOLERANCE = 0.35
"""A text of another kind has so many more, or fewer, tokens than its bytes say; see
docs/results/prompt_truth.md. Nearer ones are preferred."""
HIT_WEIGHT = 0.25
"""Of what was found in the cache against the length: it may have been given up meanwhile, where
the length stays what it is. A judgement."""
GOES_ON_COST = 0.1
"""A prompt is computed in chunks, of which the last is looked for; but the next turn of a session
may have been sent before the end of this one was heard. A judgement."""


@dataclass(frozen=True, slots=True, eq=False)
class SentPrompt:
    """A request whose prompt has come into the cache.

    Attributes:
        found_blocks, expected_tokens: what was matched when it was sent.
        prompt_tokens, cached_tokens: by the engine's usage; None where it did not say.
    """

    request: InferenceRequest
    dispatched_at_s: float
    found_blocks: int = 0
    expected_tokens: float = 0.0
    prompt_tokens: int | None = None
    cached_tokens: int | None = None


def mismatch_of(segment: Segment, prompt: SentPrompt) -> float:
    """How little *segment* looks like the end of it, from 0; infinite where it cannot be."""
    if not segment.is_new:
        return float("inf")
    tokens = prompt.prompt_tokens or prompt.request.prompt_tokens
    size = segment.block_tokens
    if prompt.prompt_tokens is not None:
        if segment.end_tokens != tokens // size * size:
            return float("inf")
        off = 0.0
    else:
        off = abs(segment.end_tokens + size / 2 - tokens) / max(tokens, 1.0)
        if off > LENGTH_TOLERANCE + size / max(tokens, 1.0):
            return float("inf")
    if not _may_follow(segment, prompt):
        return float("inf")
    start_tokens = first_own(segment, prompt).start_tokens
    off += GOES_ON_COST * segment.goes_on
    return off + HIT_WEIGHT * abs(start_tokens - found_tokens(prompt)) / max(tokens, 1.0)


def found_tokens(prompt: SentPrompt) -> float:
    """Of its prompt, those that were found in the cache, as far as is known."""
    return prompt.expected_tokens if prompt.cached_tokens is None else prompt.cached_tokens


def new_tokens(prompt: SentPrompt) -> float:
    """Of its prompt, those that were not found in the cache, as far as is known."""
    tokens = prompt.prompt_tokens or prompt.request.prompt_tokens
    return max(tokens - found_tokens(prompt), 0.0)


def is_generated(segment: Segment) -> bool:
    """Whether it looks like a block of an answer: one by one, each after the other."""
    before = segment.parent
    return len(segment.hashes) == 1 and before is not None and len(before.hashes) == 1


def first_own(segment: Segment, prompt: SentPrompt) -> Segment:
    """The first of those that were stored for *prompt*, if *segment* is the last of them.

    What comes before may be new too, and of one in flight that it was computed after.
    """
    found, first = prompt.cached_tokens, segment
    for each in _contiguous_new(segment):
        # Its own begin where what was found ends, where the engine says that.
        if found is None or abs(each.start_tokens - found) <= abs(first.start_tokens - found):
            first = each
    return first


def _contiguous_new(segment: Segment) -> Iterator[Segment]:
    """The new ones before it that it follows to their ends: who has more blocks is another."""
    while (before := segment.parent) is not None and before.is_new:
        if before.end_tokens != segment.start_tokens:
            return
        yield before
        segment = before


def _may_follow(segment: Segment, prompt: SentPrompt) -> bool:
    """Whether what comes before it may be the beginning of *prompt*."""
    each, before = segment, segment.parent
    while before is not None and before.prompt is None:
        each, before = before, before.parent
    if before is None or before.prompt is None:
        return True
    return before.prompt.begins(prompt.request.block_hashes, each.start_tokens)
