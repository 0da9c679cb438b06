"""What is read of vLLM's KV events, in every form that its versions write."""

from __future__ import annotations

import msgpack
import pytest

from kv_publisher import removed, stored
from lodestar_extproc.fleet.kv_events.events import (
    MAX_BATCH_BLOCKS,
    SLICE_BLOCKS,
    AllCleared,
    BlocksRemoved,
    BlocksStored,
    EventBatch,
    read_batch,
)


def read(events, *more, at_s=12.5) -> EventBatch:
    payload = msgpack.packb([at_s, events, *more])
    return read_batch(payload, lambda said: msgpack.unpackb(said, strict_map_key=False))


def test_a_message_may_be_a_map_too():
    said = {"type": "KVEventBatch", "ts": 3, "events": [removed([1])], "data_parallel_rank": 0}
    batch = read_batch(msgpack.packb(said), msgpack.unpackb)
    assert batch == EventBatch(3.0, [BlocksRemoved([1])])
    with pytest.raises(ValueError, match="no batch"):
        read_batch(msgpack.packb({"events": []}), msgpack.unpackb)


def test_events_are_maps_since_the_middle_of_2026():
    batch = read([stored([1, 2], parent=9), removed([1]), {"type": "AllBlocksCleared"}], 0)
    assert batch.at_s == 12.5
    assert batch.events == [BlocksStored([1, 2], 9, 16), BlocksRemoved([1]), AllCleared()]


def test_events_were_arrays_before():
    old = ["BlockStored", [1, 2], None, list(range(32)), 16, None]
    batch = read([old, ["BlockRemoved", [1]], ["AllBlocksCleared"]])
    assert batch.events == [BlocksStored([1, 2], None, 16), BlocksRemoved([1]), AllCleared()]


def test_fields_of_later_versions_change_nothing():
    assert read([stored([1], session_id="s", unheard_of=[{}])], 0, "more").events == [
        BlocksStored([1], None, 16)
    ]


def test_a_kind_of_event_that_is_not_known_is_left_out():
    assert read([{"type": "BlockMoved"}, removed([3])]).events == [BlocksRemoved([3])]


def test_a_hash_in_bytes_is_the_number_that_vllm_writes_of_it():
    whole = bytes(24) + (77).to_bytes(8, "big")
    assert read([stored([whole], parent=whole)]).events == [BlocksStored([77], 77, 16)]


def test_what_is_stored_beside_the_gpu_is_told_apart():
    (event,) = read([stored([1], medium="CPU", token_ids=[])]).events
    assert not event.in_gpu


@pytest.mark.parametrize("kind", ["sliding_window", "mamba", "chunked_local_attention"])
def test_layers_that_keep_the_end_of_a_prompt_only_are_told_apart(kind):
    (event,) = read([stored([1], group_idx=1, kv_cache_spec_kind=kind)]).events
    assert (event.whole, event.group) == (False, 1)


@pytest.mark.parametrize("kind", [None, "full_attention", "mla_attention", "sink_full_attention"])
def test_layers_that_keep_all_of_a_prompt_are_heeded(kind):
    (event,) = read([stored([1], kv_cache_spec_kind=kind)]).events
    assert event.whole


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\xff" * 40,
        msgpack.packb(None),
        msgpack.packb([1.0]),
        msgpack.packb(["no time", []]),
        msgpack.packb([1.0, 5]),
        msgpack.packb([1.0, [5]]),
        msgpack.packb([1.0, [[]]]),
        msgpack.packb([1.0, [{"block_hashes": [1]}]]),
        msgpack.packb([1.0, [{"type": "BlockStored", "block_hashes": [1]}]]),
        msgpack.packb([1.0, [stored([1], size=0)]]),
        msgpack.packb([1.0, [stored(["text"])]]),
        msgpack.packb([1.0, [stored([None])]]),
        msgpack.packb([1.0, [{"type": "BlockRemoved", "block_hashes": 7}]]),
        msgpack.packb([1.0, [stored(range(MAX_BATCH_BLOCKS + 1), size=1)]]),
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 5000,
    ],
)
def test_what_is_no_batch_is_refused_as_a_whole(payload):
    with pytest.raises(ValueError, match="batch"):
        read_batch(payload, lambda said: msgpack.unpackb(said, strict_map_key=False))


def test_a_long_event_comes_in_parts_that_follow_each_other():
    hashes = list(range(1, 2 * SLICE_BLOCKS + 4))
    parts = read([stored(hashes, parent=-1), removed(hashes)]).events
    assert [each for p in parts[:3] for each in p.hashes] == hashes
    assert [p.parent for p in parts[:3]] == [-1, SLICE_BLOCKS, 2 * SLICE_BLOCKS]
    assert [each for p in parts[3:] for each in p.hashes] == hashes
