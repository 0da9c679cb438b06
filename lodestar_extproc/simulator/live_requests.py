"""The requests of one engine between its steps: submitted, aborted, looked at, forgotten.

It knows neither scheduling nor step time. Numba's cache does not see changes in an
imported file: after one, remove this folder's `__pycache__`.
"""

from __future__ import annotations

from typing import Any

from numba import njit

from lodestar_extproc.simulator.addresses import state_at
from lodestar_extproc.simulator.block_pool import insert_before, missing_blocks, release, unlink
from lodestar_extproc.simulator.state import PENDING, RUNNING, UNUSED, WAITING, EngineState

NOBODY = -1  # no slot, in linked lists of slots


@njit(cache=True)
def submit(address: int, request: int, ids: Any, prompt: int, output: int, ready_s: float) -> bool:
    """Queue a request from *ready_s* on; False if it found no room."""
    state = state_at(address)
    engine, requests = state.engine, state.requests
    slot = requests[UNUSED].next
    if slot == UNUSED or engine.n_live >= engine.max_live_requests:
        return False
    entry = requests[slot]
    entry.held = 0
    entry.ids_at = engine.spans_end
    entry.n_ids = len(ids)
    entry.table_at = entry.ids_at + entry.n_ids
    entry.table_end = entry.table_at + missing_blocks(entry, prompt + output)
    if entry.table_end > len(state.spans):
        return False
    engine.spans_end = entry.table_end
    for j in range(len(ids)):
        state.spans[entry.ids_at + j] = ids[j]
    entry.request = request
    entry.ready_s = ready_s
    entry.prompt = prompt
    entry.output = output
    entry.generated = entry.computed = entry.scheduled = entry.aborted = 0
    entry.cached = -1
    unlink(requests, slot)
    insert_before(requests, PENDING, slot)
    engine.n_live += 1
    if not engine.stepping:
        engine.next_event_s = min(engine.next_event_s, ready_s)
    return True


@njit(cache=True)
def leave(state: EngineState, slot: int) -> None:
    """Forget a request, whichever list it is in."""
    release(state, state.requests[slot])
    unlink(state.requests, slot)
    insert_before(state.requests, UNUSED, slot)
    state.engine.n_live -= 1


@njit(cache=True)
def show(engine: Any) -> None:
    """Let the metric page catch up with the engine."""
    engine.shown_running = engine.n_running
    engine.shown_waiting = engine.n_waiting
    engine.shown_free_blocks = engine.free_blocks


@njit(cache=True)
def find_slot(requests: Any, head: int, request: int) -> int:
    """The slot of *request* in the list of *head*; *head* itself if it is not there."""
    slot = requests[head].next
    while slot != head and requests[slot].request != request:
        slot = requests[slot].next
    return slot


@njit(cache=True)
def abort(address: int, request: int) -> bool:
    """Drop *request*: at once if it waits, at the end of the step if one runs; False if unknown."""
    state = state_at(address)
    engine, requests = state.engine, state.requests
    slot = find_slot(requests, RUNNING, request)
    if slot != RUNNING and engine.stepping:
        requests[slot].aborted = 1
        return True
    if slot != RUNNING:
        engine.n_running -= 1
        leave(state, slot)
        show(engine)
        return True
    slot = find_slot(requests, WAITING, request)
    if slot != WAITING:
        engine.n_waiting -= 1
        leave(state, slot)
        return True
    slot = find_slot(requests, PENDING, request)
    if slot != PENDING:
        leave(state, slot)
        return True
    return False


@njit(cache=True)
def progress(address: int, out: Any) -> int:
    """Write (request, tokens generated) of every running request to *out*; returns how many."""
    requests = state_at(address).requests
    n = 0
    slot = requests[RUNNING].next
    while slot != RUNNING:
        out[n, 0] = requests[slot].request
        out[n, 1] = requests[slot].generated
        n += 1
        slot = requests[slot].next
    return n


@njit(cache=True)
def move_spans(address: int, spans: Any) -> int:
    """Copy the spans of all live requests to the start of *spans*; returns where they end."""
    state = state_at(address)
    end = 0
    for head in (PENDING, WAITING, RUNNING):
        slot = state.requests[head].next
        while slot != head:
            entry = state.requests[slot]
            start, length = entry.ids_at, entry.table_end - entry.ids_at
            for j in range(length):
                spans[end + j] = state.spans[start + j]
            entry.ids_at = end
            entry.table_at = end + entry.n_ids
            entry.table_end = end + length
            end += length
            slot = entry.next
    state.engine.spans_end = end
    return end
