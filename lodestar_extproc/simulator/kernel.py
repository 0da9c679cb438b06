"""The compiled steps of one engine: scheduling as vLLM's V1 and V0 engines do, and step time.

It knows neither Python objects nor accelerators: `engine.py` owns the arrays and fills them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from lodestar_extproc.simulator.addresses import state_at
from lodestar_extproc.simulator.block_pool import (
    allocate,
    insert_before,
    look_up,
    missing_blocks,
    publish,
    release,
    take_hits,
    unlink,
)
from lodestar_extproc.simulator.defaults import BLOCK_TOKENS
from lodestar_extproc.simulator.live_requests import NOBODY, leave, show
from lodestar_extproc.simulator.state import (
    PENDING,
    RUNNING,
    WAITING,
    EngineState,
)

FIRST_TOKEN, COMPLETED = 0, 1  # kinds of events, as numbers for compiled code
RETRY_S = 0.005
"""An engine whose queued work fits nowhere looks again after this long."""


@njit(cache=True)
def preempt_last(state: EngineState) -> int:
    """Send the last running request back to the front of the queue, to be recomputed."""
    slot = state.requests[RUNNING].previous
    release(state, state.requests[slot])
    unlink(state.requests, slot)
    insert_before(state.requests, state.requests[WAITING].next, slot)
    state.engine.n_running -= 1
    state.engine.n_waiting += 1
    state.engine.preemptions += 1
    return slot


@njit(cache=True)
def make_room(state: EngineState, slot: int, n: int) -> bool:
    """Preempt from the back until *slot* can grow by *n* tokens; False if it went itself."""
    request = state.requests[slot]
    while missing_blocks(request, request.computed + n) > state.engine.free_blocks:
        if preempt_last(state) == slot:
            return False
    return True


@njit(inline="always")
def grant(state: EngineState, slot: int, n: int) -> None:
    """Schedule *n* tokens of *slot* in this step; their blocks can be hit from now on."""
    engine, request = state.engine, state.requests[slot]
    end = request.computed + n
    for _ in range(missing_blocks(request, end)):
        allocate(state, request)
    # Most steps of a decode fill no block: then nothing is called, as arguments are many.
    full_before, full = request.computed // BLOCK_TOKENS, end // BLOCK_TOKENS
    if full > full_before and engine.prefix_caching:
        publish(state, request, full_before, full)
    request.scheduled = n
    if n == 1 and request.computed >= request.prompt:
        engine.step_decodes += 1
        engine.step_context += end
    else:
        engine.step_prefill += n
        engine.step_pairs += n * (request.computed + n / 2)


@njit(cache=True)
def admit(state: EngineState, slot: int) -> None:
    """Move *slot*, its hits already taken, from the queue to the end of the running list."""
    engine, request = state.engine, state.requests[slot]
    unlink(state.requests, slot)
    insert_before(state.requests, RUNNING, slot)
    engine.n_waiting -= 1
    engine.n_running += 1
    if request.cached >= 0:
        return
    request.cached = request.computed
    engine.prompt_tokens += request.prompt
    if engine.prefix_caching:
        engine.prefix_query_tokens += request.prompt
        engine.prefix_hit_tokens += request.computed


@njit(cache=True)
def schedule_chunked(state: EngineState) -> None:
    """As vLLM V1: running requests first, then the queue, strictly first come first served."""
    engine, requests = state.engine, state.requests
    left, preempted_before = engine.token_budget, engine.preemptions
    slot = requests[RUNNING].next
    while slot != RUNNING and left > 0:
        request = requests[slot]
        n = min(request.prompt + request.generated - request.computed, left)
        missing = missing_blocks(request, request.computed + n)
        if missing > engine.free_blocks and not make_room(state, slot, n):
            break
        grant(state, slot, n)
        left -= n
        slot = requests[slot].next
    if engine.preemptions > preempted_before:
        return
    while left > 0 and engine.n_waiting > 0 and engine.n_running < engine.max_running:
        slot = requests[WAITING].next
        request = requests[slot]
        hits, idle = look_up(state, request) if engine.prefix_caching else (0, 0)
        cached = hits * BLOCK_TOKENS
        n = min(request.prompt + request.generated - cached, left)
        if missing_blocks(request, cached + n) - hits + idle > engine.free_blocks:
            return
        take_hits(state, request, hits)
        admit(state, slot)
        grant(state, slot, n)
        left -= n


@njit(cache=True)
def schedule_whole(state: EngineState) -> None:
    """As vLLM V0: all whole prompts that fit; only without one a token for each running request."""
    engine, requests = state.engine, state.requests
    left = engine.token_budget
    while engine.n_waiting > 0 and engine.n_running < engine.max_running:
        slot = requests[WAITING].next
        n = requests[slot].prompt + requests[slot].generated
        reserve = engine.watermark_blocks if engine.n_running > 0 else 0
        if n > left or missing_blocks(requests[slot], n) > engine.free_blocks - reserve:
            break
        admit(state, slot)
        grant(state, slot, n)
        left -= n
    if left < engine.token_budget:
        return
    slot = requests[RUNNING].next
    while slot != RUNNING and make_room(state, slot, 1):
        grant(state, slot, 1)
        slot = requests[slot].next


@njit(cache=True)
def uniform(engine: Any) -> float:
    """The next number in (0, 1), by splitmix64 (Steele, Lea, Flood 2014)."""
    engine.random += np.uint64(0x9E3779B97F4A7C15)
    z = engine.random
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (np.float64(z >> np.uint64(11)) + 0.5) * 2.0**-53


@njit(cache=True)
def step_time_s(engine: Any) -> float:
    """How long the step just scheduled takes (the formula is `accelerators.StepCost`'s)."""
    tokens = engine.step_prefill + engine.step_decodes
    attention_ms = (
        engine.per_mpair_ms * engine.step_pairs / 1e6
        + engine.per_kcontext_ms * engine.step_context / 1e3
    )
    if engine.step_prefill > 0 and engine.step_decodes > 0:
        attention_ms *= 1 + engine.mixed_ratio
    dense_ms = max(engine.floor_ms, engine.base_ms + engine.per_token_ms * tokens)
    time_ms = dense_ms + attention_ms + engine.per_decode_ms * engine.step_decodes + engine.host_ms
    time_ms *= engine.slow_factor
    if engine.jitter_cv > 0:
        radius = math.sqrt(-2 * math.log(uniform(engine)))
        time_ms *= math.exp(engine.jitter_cv * radius * math.cos(2 * math.pi * uniform(engine)))
    if engine.stall_ratio > 0 and uniform(engine) < engine.stall_ratio:
        span_s = engine.stall_max_s - engine.stall_min_s
        time_ms += 1e3 * (engine.stall_min_s + span_s * uniform(engine))
    return time_ms / 1e3


@njit(cache=True)
def schedule(state: EngineState, seen_until_s: float) -> None:
    """Put the next step together from what had arrived by *seen_until_s*."""
    engine, requests = state.engine, state.requests
    slot = requests[PENDING].next
    while slot != PENDING and requests[slot].ready_s <= seen_until_s:
        unlink(requests, slot)
        insert_before(requests, WAITING, slot)
        engine.n_waiting += 1
        slot = requests[PENDING].next
    engine.step_prefill = engine.step_decodes = 0
    engine.step_pairs = engine.step_context = 0.0
    if engine.chunked:
        schedule_chunked(state)
    else:
        schedule_whole(state)


@njit(cache=True)
def start_step(state: EngineState) -> None:
    """Schedule the next step, or set when to look again."""
    engine = state.engine
    if engine.scheduled_ahead and engine.stepping:
        schedule(state, engine.step_began_s)
        # Nothing was put together ahead: then it is now.
        if engine.step_prefill + engine.step_decodes == 0:
            schedule(state, engine.now_s)
    else:
        schedule(state, engine.now_s)
    slot = state.requests[PENDING].next
    engine.stepping = engine.step_prefill + engine.step_decodes > 0
    if engine.stepping:
        engine.steps += 1
        engine.step_began_s = engine.now_s
        engine.next_event_s = engine.now_s + step_time_s(engine)
    elif engine.n_waiting + engine.n_running > 0:
        engine.next_event_s = engine.now_s + RETRY_S
    elif slot != PENDING:
        engine.next_event_s = state.requests[slot].ready_s
    else:
        engine.next_event_s = np.inf


@njit(cache=True)
def note(event: Any, kind: int, request: Any, at_s: float) -> None:
    event.kind = kind
    event.request = request.request
    event.at_s = at_s
    event.cached = request.cached


@njit(cache=True)
def finish_step(state: EngineState, events: Any, n_events: int) -> int:
    """Apply the step that just ended; returns how many events there are now."""
    engine, requests = state.engine, state.requests
    slot = requests[RUNNING].next
    while slot != RUNNING:
        request, after = requests[slot], requests[slot].next
        request.computed += request.scheduled
        produced = request.scheduled > 0 and request.computed >= request.prompt + request.generated
        request.scheduled = 0
        if request.aborted:
            engine.n_running -= 1
            leave(state, slot)
        elif produced:
            request.generated += 1
            engine.generated_tokens += 1
            if request.generated == 1:
                note(events[n_events], FIRST_TOKEN, request, engine.now_s)
                n_events += 1
            if request.generated == request.output:
                note(events[n_events], COMPLETED, request, engine.now_s)
                n_events += 1
                engine.n_running -= 1
                leave(state, slot)
        slot = after
    show(engine)
    return n_events


@njit(cache=True)
def happened(events: Any, watched: int) -> bool:
    found = False
    for event in events:
        found |= event.request == watched
    return found


@njit(cache=True)
def run(state: EngineState, events: Any, n_events: int, until_s: float, watched: int) -> int:
    """Run to *until_s*, or to the first token of *watched*; returns how many events there are."""
    engine = state.engine
    while engine.next_event_s <= until_s and engine.next_event_s < np.inf:
        engine.now_s = engine.next_event_s
        before = n_events
        if engine.stepping:
            n_events = finish_step(state, events, n_events)
        start_step(state)
        if watched != NOBODY and happened(events[before:n_events], watched):
            break
    return n_events


@njit(cache=True)
def advance(address: int, events: Any, until_s: float, watched: int) -> int:
    """Run one engine to *until_s*, or to the first token of *watched*; returns the events."""
    return run(state_at(address), events, 0, until_s, watched)
