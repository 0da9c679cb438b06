"""How far the blocks that an engine has stored look like those of a request that was sent there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lodestar_extproc.fleet.kv_events.engine_blocks import Segment
from lodestar_extproc.request import BLOCK_BYTES, InferenceRequest

LENGTH_TOLERANCE = 0.35
"""A text of another kind has so many more, or fewer, tokens than its bytes say; see
docs/results/prompt_truth.md. Nearer ones are preferred."""
HIT_WEIGHT = 0.25
"""Of what was found in the cache against the length: it may have been given up meanwhile, where
the length stays what it is. A judgement."""
GOES_ON_COST = 0.1
"""A prompt is computed in chunks, of which the last is looked for; but the next turn of a session
may have been sent before the end of this one was heard. A judgement."""
MISTAKEN_COST = 0.2
"""Of holding that what comes before was taken for another's. Without it one mistake left all later
turns of a session without their blocks, as they follow blocks that are not theirs. A judgement."""
ANSWER_COST = 0.1
"""Of taking one block after several for a prompt's: mostly an answer fills it. A judgement."""


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


def mismatch_of(segment: Segment, prompt: SentPrompt, tokens_per_block: float | None) -> float:
    """How little *segment* looks like the end of it, from 0; infinite where it cannot be.

    Args:
        tokens_per_block: of bytes, as prompts before have shown; None where none has.
    """
    if not segment.is_new:
        return float("inf")
    tokens, size = length_tokens(prompt, tokens_per_block), segment.block_tokens
    if prompt.prompt_tokens is not None:
        if segment.end_tokens != prompt.prompt_tokens // size * size:
            return float("inf")
        off = 0.0
    else:
        off = abs(segment.end_tokens + size / 2 - tokens) / max(tokens, 1.0)
        if tokens_per_block and off > LENGTH_TOLERANCE + size / max(tokens, 1.0):
            return float("inf")
        off += ANSWER_COST * begins_answer(segment)
    off += doubt_of(segment, prompt)
    start_tokens = first_own(segment, prompt).start_tokens
    off += GOES_ON_COST * segment.goes_on
    return off + HIT_WEIGHT * abs(start_tokens - found_tokens(prompt)) / max(tokens, 1.0)


def length_tokens(prompt: SentPrompt, tokens_per_block: float | None) -> float:
    """Of its prompt, by its usage or else by its bytes."""
    if prompt.prompt_tokens is not None:
        return prompt.prompt_tokens
    if tokens_per_block is None:
        return prompt.request.prompt_tokens
    return prompt.request.prompt_bytes / BLOCK_BYTES * tokens_per_block


def found_tokens(prompt: SentPrompt) -> float:
    """Of its prompt, those that were found in the cache, as far as is known."""
    return prompt.expected_tokens if prompt.cached_tokens is None else prompt.cached_tokens


def new_tokens(prompt: SentPrompt) -> float:
    """Of its prompt, those that were not found in the cache, as far as is known."""
    if prompt.prompt_tokens is not None:
        return max(prompt.prompt_tokens - found_tokens(prompt), 0.0)
    # Not all but what was found: what bytes say of the whole may be off by more than is new.
    request = prompt.request
    n_new = request.prompt_bytes / BLOCK_BYTES - prompt.found_blocks
    return max(n_new, 0.0) * request.tokens_per_block


def stores_any(prompt: SentPrompt, block_tokens: int) -> bool:
    """Whether enough of it is new for whole blocks to be stored."""
    return new_tokens(prompt) >= 2 * max(block_tokens, 1)


def is_generated(segment: Segment) -> bool:
    """Whether it looks like a block of an answer: one by one, each after the other."""
    before = segment.parent
    return len(segment.hashes) == 1 and before is not None and len(before.hashes) == 1


def begins_answer(segment: Segment) -> bool:
    """Whether it looks like the first block that an answer has filled."""
    before = segment.parent
    return (
        len(segment.hashes) == 1
        and before is not None
        and before.is_new
        and before.end_tokens == segment.start_tokens
    )


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


def doubt_of(segment: Segment, prompt: SentPrompt) -> float:
    """How far what comes before it would have been taken for another's, were it *prompt*'s."""
    each, doubt = segment, 0.0
    while (before := each.parent) is not None:
        owner = before.prompt
        if owner is not None and owner is not each.prompt:
            if owner.begins(prompt.request.block_hashes, each.start_tokens):
                return doubt
            doubt = MISTAKEN_COST
        each = before
    return doubt
