"""The flat arrays one simulated engine consists of; copying them copies the engine.

It knows the layout, not what happens to it: that is in `block_pool.py`, `live_requests.py` and
`kernel.py`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

PENDING, WAITING, RUNNING, UNUSED = 0, 1, 2, 3
"""The first request slots head circular lists; every other slot is in exactly one of them."""
N_HEADS = 4  # PENDING to UNUSED

ENGINE = np.dtype(
    [
        # Coefficients, constant but for the slow factor.
        ("floor_ms", "f8"),
        ("base_ms", "f8"),
        ("per_token_ms", "f8"),
        ("per_mpair_ms", "f8"),
        ("per_decode_ms", "f8"),
        ("per_kcontext_ms", "f8"),
        ("host_ms", "f8"),
        ("mixed_ratio", "f8"),
        ("jitter_cv", "f8"),
        ("stall_ratio", "f8"),
        ("stall_min_s", "f8"),
        ("stall_max_s", "f8"),
        ("slow_factor", "f8"),
        ("token_budget", "i8"),
        ("max_running", "i8"),
        ("chunked", "i8"),
        ("scheduled_ahead", "i8"),
        ("prefix_caching", "i8"),
        ("watermark_blocks", "i8"),
        ("max_live_requests", "i8"),
        # The clock and the step in progress.
        ("now_s", "f8"),
        ("next_event_s", "f8"),
        ("step_began_s", "f8"),
        ("stepping", "i8"),
        ("step_prefill", "i8"),
        ("step_decodes", "i8"),
        ("step_context", "f8"),
        ("step_pairs", "f8"),
        ("random", "u8"),
        # Sizes, exact at any time.
        ("n_live", "i8"),
        ("n_waiting", "i8"),
        ("n_running", "i8"),
        ("free_blocks", "i8"),
        ("spans_end", "i8"),
        # Totals.
        ("steps", "i8"),
        ("preemptions", "i8"),
        ("prompt_tokens", "i8"),
        ("generated_tokens", "i8"),
        ("prefix_query_tokens", "i8"),
        ("prefix_hit_tokens", "i8"),
        # What the metric page shows: as it was at the end of a step.
        ("shown_waiting", "i8"),
        ("shown_running", "i8"),
        ("shown_free_blocks", "i8"),
        # Where the other arrays lie, and how long they are.
        ("requests_at", "i8"),
        ("n_requests", "i8"),
        ("blocks_at", "i8"),
        ("n_blocks", "i8"),
        ("index_at", "i8"),
        ("n_index", "i8"),
        ("spans_at", "i8"),
        ("n_spans", "i8"),
    ],
    align=True,
)
REQUEST = np.dtype(
    [
        # What every step looks at, within one cache line.
        ("next", "i4"),
        ("previous", "i4"),
        ("prompt", "i4"),
        ("output", "i4"),
        ("generated", "i4"),
        ("computed", "i4"),
        ("scheduled", "i4"),
        ("aborted", "i4"),
        ("held", "i4"),
        ("cached", "i4"),
        ("n_ids", "i4"),
        ("ids_at", "i4"),
        ("table_at", "i4"),
        ("table_end", "i4"),
        ("request", "i8"),
        ("ready_s", "f8"),
    ],
    align=True,
)
BLOCK = np.dtype(
    [("id", "u8"), ("next", "i4"), ("previous", "i4"), ("references", "i4"), ("hashed", "i4")],
    align=True,
)
EVENT = np.dtype(
    [("engine", "i8"), ("kind", "i8"), ("request", "i8"), ("at_s", "f8"), ("cached", "i8")],
    align=True,
)


class EngineState(NamedTuple):
    """Everything an engine is.

    Attributes:
        engine: one ENGINE record.
        requests: REQUEST by slot.
        blocks: BLOCK by number; the one past the last heads the free list.
        index: int32, a hash table with open addressing: by block id the number of the block that
            has it, -1 where none stands; a power of two long. Small, for it is read at random.
        spans: int64; for each request the ids of its blocks, then the numbers of those it holds.
    """

    engine: Any
    requests: Any
    blocks: Any
    index: Any
    spans: Any


def empty_state(kv_blocks: int, n_slots: int, n_spans: int) -> EngineState:
    """An engine without coefficients, all blocks free, room for *n_slots* requests."""
    engine = np.zeros(1, ENGINE)
    engine["free_blocks"] = engine["shown_free_blocks"] = kv_blocks
    engine["next_event_s"] = np.inf
    engine["now_s"] = -np.inf
    requests = np.zeros(N_HEADS, REQUEST)
    requests["next"] = requests["previous"] = np.arange(N_HEADS)
    blocks = np.zeros(kv_blocks + 1, BLOCK)
    numbers = np.arange(kv_blocks + 1)
    blocks["next"] = np.roll(numbers, -1)
    blocks["previous"] = np.roll(numbers, 1)
    # At most half full, so that probes stay short.
    index = np.full(1 << (2 * kv_blocks - 1).bit_length(), -1, np.int32)
    state = EngineState(engine, requests, blocks, index, np.zeros(n_spans, np.int64))
    return with_slots(state, n_slots)


def with_slots(state: EngineState, n_slots: int) -> EngineState:
    """The same engine with *n_slots* more request slots."""
    old = len(state.requests)
    requests = np.concatenate([state.requests, np.zeros(n_slots, REQUEST)])
    added = np.arange(old, old + n_slots)
    requests["next"][added] = np.append(added[1:], UNUSED)
    last = requests["previous"][UNUSED]
    requests["previous"][added] = np.append(last, added[:-1])
    requests["next"][last] = old
    requests["previous"][UNUSED] = added[-1]
    return state._replace(requests=requests)


def address_of(state: EngineState) -> int:
    """Where the engine's record lies, once it says where the other arrays do.

    One number names an engine to compiled code, and many engines are a list of numbers; whoever
    uses it keeps *state*.
    """
    for name, array in zip(EngineState._fields[1:], state[1:], strict=True):
        state.engine[f"{name}_at"] = array.ctypes.data
        state.engine[f"n_{name}"] = len(array)
    address: int = state.engine.ctypes.data
    return address


def copy_state(state: EngineState) -> EngineState:
    """An independent copy."""
    return EngineState(*(array.copy() for array in state))
