"""An engine's KV blocks: reference counts, a hashed LRU free list, and the index of block ids.

It knows neither steps nor time. As in vLLM V1, freed blocks keep their content until they are
reused: unhashed ones first, then the least recently freed, a prompt's end before its beginning.
Numba's cache does not see changes in an imported file: after one, remove this folder's
`__pycache__`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from lodestar_extproc.simulator.defaults import BLOCK_TOKENS
from lodestar_extproc.simulator.state import EngineState


@njit(cache=True)
def insert_before(nodes: Any, at: int, node: int) -> None:
    """Link *node* into the circular list before *at*; before its head is the list's end."""
    before = nodes[at].previous
    nodes[node].previous = before
    nodes[node].next = at
    nodes[before].next = node
    nodes[at].previous = node


@njit(cache=True)
def unlink(nodes: Any, node: int) -> None:
    before, after = nodes[node].previous, nodes[node].next
    nodes[before].next = after
    nodes[after].previous = before


@njit(cache=True)
def home(index: Any, block_id: int) -> int:
    """Where *block_id* stands if nothing else is there (Fibonacci hashing)."""
    mixed = np.uint64(block_id) * np.uint64(0x9E3779B97F4A7C15)
    return int(mixed >> np.uint64(32)) & (len(index) - 1)


@njit(cache=True)
def find(state: EngineState, block_id: int) -> int:
    """Where *block_id* stands in the index, or the free place where it would."""
    index, blocks = state.index, state.blocks
    at = home(index, block_id)
    while index[at] >= 0 and blocks[index[at]].id != block_id:
        at = (at + 1) & (len(index) - 1)
    return at


@njit(cache=True)
def forget(state: EngineState, block_id: int) -> None:
    """Remove *block_id*, closing the gap so that later entries stay reachable."""
    index, blocks = state.index, state.blocks
    mask = len(index) - 1
    gap = find(state, block_id)
    at = (gap + 1) & mask
    while index[at] >= 0:
        if (at - home(index, blocks[index[at]].id)) & mask >= (at - gap) & mask:
            index[gap] = index[at]
            gap = at
        at = (at + 1) & mask
    index[gap] = -1


@njit(cache=True)
def missing_blocks(request: Any, tokens: int) -> int:
    """Blocks *request* must be given to hold *tokens*."""
    return (tokens + BLOCK_TOKENS - 1) // BLOCK_TOKENS - request.held


@njit(cache=True)
def allocate(state: EngineState, request: Any) -> None:
    """Give *request* the block at the head of the free list, evicting what it kept."""
    number = state.blocks[len(state.blocks) - 1].next
    unlink(state.blocks, number)
    block = state.blocks[number]
    if block.hashed:
        forget(state, block.id)
        block.hashed = 0
    block.references = 1
    state.engine.free_blocks -= 1
    state.spans[request.table_at + request.held] = number
    request.held += 1


@njit(cache=True)
def release(state: EngineState, request: Any) -> None:
    """Take back all its blocks, last first; a hashed one goes to the end of the free list."""
    free = len(state.blocks) - 1
    for j in range(request.held - 1, -1, -1):
        number = state.spans[request.table_at + j]
        block = state.blocks[number]
        block.references -= 1
        if block.references == 0:
            insert_before(state.blocks, free if block.hashed else state.blocks[free].next, number)
            state.engine.free_blocks += 1
    request.held = 0
    request.computed = 0


@njit(cache=True)
def publish(state: EngineState, request: Any, first: int, end: int) -> None:
    """Let others hit the blocks [first, end) of *request*; the first writer of an id wins."""
    for j in range(first, min(end, request.n_ids)):
        number = state.spans[request.table_at + j]
        block = state.blocks[number]
        if block.hashed:
            continue
        block_id = np.uint64(state.spans[request.ids_at + j])
        at = find(state, block_id)
        if state.index[at] < 0:
            state.index[at] = number
            block.id = block_id
            block.hashed = 1


@njit(cache=True)
def look_up(state: EngineState, request: Any) -> tuple[int, int]:
    """Leading blocks in the cache, and how many of these lie in the free list.

    They are written to the request's table but not yet taken. The last token is never a hit: it
    must be computed to produce the next.
    """
    idle = 0
    most = min(request.n_ids, (request.prompt + request.generated - 1) // BLOCK_TOKENS)
    for j in range(most):
        number = state.index[find(state, np.uint64(state.spans[request.ids_at + j]))]
        if number < 0:
            return j, idle
        state.spans[request.table_at + j] = number
        idle += state.blocks[number].references == 0
    return most, idle


@njit(cache=True)
def take_hits(state: EngineState, request: Any, hits: int) -> None:
    """Hold the first *hits* blocks that `look_up` found."""
    for j in range(hits):
        number = state.spans[request.table_at + j]
        block = state.blocks[number]
        if block.references == 0:
            unlink(state.blocks, number)
            state.engine.free_blocks -= 1
        block.references += 1
    request.held = hits
    request.computed = hits * BLOCK_TOKENS
