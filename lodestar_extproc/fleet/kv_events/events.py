"""read_batch: what one message of vLLM's says of its cache. Its versions write events differently.

Since vllm#42892 (June 2026) events are maps with `type`; before, arrays that begin with their type.
The message around them is an array, or a map. Fields that are new, or missing, change nothing; a
message that is none of these is refused as a whole.
Source: `vllm/distributed/kv_events.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

GPU = "GPU"
"""The medium from which a prompt's blocks are used as they are; vLLM's word."""
MAX_BATCH_BLOCKS = 65_536
"""Of one message: a step of a million tokens stores as many. More is no engine's."""
SLICE_BLOCKS = 256
"""Taken in at once, in about 0.2 ms: requests come between."""
_BATCH_FIELDS = ("ts", "events")
_STORED_FIELDS = (
    "block_hashes",
    "parent_block_hash",
    "token_ids",
    "block_size",
    "lora_id",
    "medium",
    "lora_name",
    "extra_keys",
    "group_idx",
    "kv_cache_spec_kind",
)
_REMOVED_FIELDS = ("block_hashes", "medium", "group_idx")
_ODD = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What any bytes, read as events, may raise here and in msgpack."""
_HASH_BYTES = 8
"""Of a hash of 32 bytes its last, as in the numbers that vLLM writes instead."""


class BlocksStored(NamedTuple):
    """Consecutive blocks of one prompt are in the cache now.

    Attributes:
        parent: hash of the block before them; None for the beginning of a prompt.
        in_gpu: else in a memory beside it, which says nothing of what is before them.
        group: of layers; models with several kinds of attention have several.
        whole: whether these layers keep a prompt from its beginning on.
    """

    hashes: Sequence[int]
    parent: int | None
    block_tokens: int
    in_gpu: bool = True
    group: int = 0
    whole: bool = True


class BlocksRemoved(NamedTuple):
    """These were given up."""

    hashes: list[int]
    group: int = 0


class AllCleared(NamedTuple):
    """The cache is empty."""


CacheEvent = BlocksStored | BlocksRemoved | AllCleared


class EventBatch(NamedTuple):
    """One message.

    Attributes:
        at_s: the engine's clock.
        events: each of `SLICE_BLOCKS` blocks at most.
    """

    at_s: float
    events: Sequence[CacheEvent]


def read_batch(payload: bytes, unpack: Callable[[bytes], Any]) -> EventBatch:
    """What *payload* says.

    Args:
        unpack: reads msgpack.

    Raises:
        ValueError: it is no message of KV events, or too large.
    """
    try:
        batch = unpack(payload)
        if isinstance(batch, dict):
            batch = [batch[name] for name in _BATCH_FIELDS]
        at_s, events, *_ = batch
        said = _all_of(events)
        at_s = float(at_s)
    except _ODD as error:
        raise ValueError(f"no batch of KV events: {error!r}") from error
    if sum(len(each.hashes) for each in said if not isinstance(each, AllCleared)) > (
        MAX_BATCH_BLOCKS
    ):
        raise ValueError(f"a batch of more than {MAX_BATCH_BLOCKS} blocks")
    return EventBatch(at_s, [part for each in said for part in _sliced(each)])


def _all_of(events: Iterable[Any]) -> list[CacheEvent]:
    """Those of kinds that are known; what is removed in a row, as vLLM tells it, at once."""
    said: list[CacheEvent] = []
    for event in events:
        read = _read(event)
        if isinstance(read, BlocksRemoved) and said:
            before = said[-1]
            if isinstance(before, BlocksRemoved) and before.group == read.group:
                before.hashes.extend(read.hashes)
                continue
        if read is not None:
            said.append(read)
    return said


def _read(event: Any) -> CacheEvent | None:
    """None for a kind of event that is not known."""
    kind, fields = _fields(event)
    match kind:
        case "BlockStored":
            return _stored(fields)
        case "BlockRemoved":
            return BlocksRemoved(_hashes(fields), int(fields.get("group_idx") or 0))
        case "AllBlocksCleared":
            return AllCleared()
    return None


def _fields(event: Any) -> tuple[str, Mapping[str, Any]]:
    if isinstance(event, dict):
        return str(event["type"]), event
    kind, *values = event
    names = _REMOVED_FIELDS if kind == "BlockRemoved" else _STORED_FIELDS
    return str(kind), dict(zip(names, values, strict=False))


def _stored(fields: Mapping[str, Any]) -> BlocksStored:
    parent, block_tokens = fields.get("parent_block_hash"), int(fields["block_size"])
    if block_tokens <= 0:
        raise ValueError(f"blocks of {block_tokens} tokens")
    kind = str(fields.get("kv_cache_spec_kind") or "full")
    return BlocksStored(
        _hashes(fields),
        None if parent is None else _hash(parent),
        block_tokens,
        in_gpu=fields.get("medium") in (None, GPU),
        group=int(fields.get("group_idx") or 0),
        whole="full" in kind or kind.startswith("mla"),
    )


def _hashes(fields: Mapping[str, Any]) -> list[int]:
    written = fields["block_hashes"]
    if isinstance(written, list) and all(type(each) is int for each in written):
        return written
    return [_hash(each) for each in written]


def _hash(written: Any) -> int:
    if isinstance(written, bytes) and written:
        return int.from_bytes(written[-_HASH_BYTES:], "big")
    if isinstance(written, int):
        return written
    raise ValueError(f"{written!r} is no hash")


def _sliced(event: CacheEvent) -> Sequence[CacheEvent]:
    if isinstance(event, AllCleared) or len(event.hashes) <= SLICE_BLOCKS:
        return (event,)
    hashes = event.hashes
    starts = range(0, len(hashes), SLICE_BLOCKS)
    if isinstance(event, BlocksRemoved):
        return [BlocksRemoved(list(hashes[at : at + SLICE_BLOCKS]), event.group) for at in starts]
    return [
        BlocksStored(
            hashes[at : at + SLICE_BLOCKS],
            hashes[at - 1] if at else event.parent,
            event.block_tokens,
            event.in_gpu,
            event.group,
            event.whole,
        )
        for at in starts
    ]
