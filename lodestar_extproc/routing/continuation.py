"""continued(): a request whose prompt goes on from what an endpoint keeps, with all of that prompt.

The body of such a request has the last turn only; the engine computes all turns.
"""

from __future__ import annotations

from array import array

from lodestar_extproc.request import (
    BLOCK_BYTES,
    HASH_TYPE,
    InferenceRequest,
    Keeping,
    hash_blocks,
    mixed,
)

MIN_COUNTED_TOKENS, COUNT_TOLERANCE_RATIO = 256.0, 0.2
"""A count tells whether a head is in it where the rest is no trifle, and it is near. Judgements."""


def continued(
    request: InferenceRequest,
    own: Keeping,
    before: InferenceRequest,
    reply_tokens: float,
    key: int,
    *,
    keeps_head: bool,
) -> InferenceRequest:
    """*request* with the prompt that it goes on from, and its reply, before its own.

    A head (tools, instructions) that it names stands in place of the earlier one.

    Args:
        own: of *request*.
        before: the request that was answered, itself continued where it went on from another.
        reply_tokens: of its answer.
        key: of what is continued.
        keeps_head: where it names no head, the engine takes the earlier one.
    """
    kept = before.keeping or Keeping()
    renewed = own.head_key != kept.head_key and bool(own.head_key or not keeps_head)
    change = kept.seed ^ own.seed ^ (kept.head_key ^ own.head_key if renewed else 0)
    # Another model, salt or head: no block is the same, as the first tells.
    blocks = mixed(before.block_hashes, change)
    own_tokens_per_byte = _tokens_per_byte(request)
    reply_bytes = int(reply_tokens / (own_tokens_per_byte or _tokens_per_byte(before) or 1.0))
    head_bytes = own.head_bytes - kept.head_bytes if renewed else 0
    own_bytes = request.prompt_bytes - own.head_bytes
    said = request.block_hashes[own.head_blocks :]
    return request._replace(
        block_hashes=array(HASH_TYPE, blocks)
        # The index does not know the words of replies, as it knows none of a chat's.
        + hash_blocks(bytes(reply_bytes // BLOCK_BYTES * BLOCK_BYTES), key)
        + array(HASH_TYPE, [block ^ key for block in said]),
        prompt_bytes=before.prompt_bytes + head_bytes + reply_bytes + own_bytes,
        prompt_tokens=before.prompt_tokens
        + reply_tokens
        + request.prompt_tokens
        + (head_bytes - own.head_bytes) * own_tokens_per_byte,
        text_bytes=None,
        n_media=before.n_media + request.n_media,
        is_plain=False,
        keeping=_joined(own, kept, renewed=renewed),
    )


def counts_head(request: InferenceRequest, own: Keeping, told: int | None) -> bool | None:
    """Whether an engine's count of a continued prompt has the head of an earlier turn in it.

    None where that cannot be told.

    Args:
        told: what it counted; None where it said nothing.
    """
    if told is None or own.borrowed_head_bytes == 0 or not request.prompt_bytes:
        return None
    head_tokens = own.borrowed_head_bytes * _tokens_per_byte(request)
    without = request.prompt_tokens - (head_tokens if own.head_key else 0.0)
    if without < MIN_COUNTED_TOKENS:
        return None
    found = None
    for counts, expected in ((False, without), (True, without + head_tokens)):
        if abs(told / expected - 1.0) < COUNT_TOLERANCE_RATIO:
            found = counts
    return found


def _joined(own: Keeping, kept: Keeping, *, renewed: bool) -> Keeping:
    borrowed_bytes = 0 if own.head_key else kept.head_bytes
    if renewed:
        return own._replace(borrowed_head_bytes=borrowed_bytes)
    return own._replace(
        head_key=kept.head_key,
        head_bytes=kept.head_bytes,
        head_blocks=kept.head_blocks,
        borrowed_head_bytes=borrowed_bytes,
    )


def _tokens_per_byte(request: InferenceRequest) -> float:
    return request.prompt_tokens / request.prompt_bytes if request.prompt_bytes else 0.0
