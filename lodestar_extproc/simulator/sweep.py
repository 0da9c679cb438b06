"""The compiled steps of many engines, one after the other.

It knows an engine by the address of its record. Numba's cache does not see changes in an imported
file: after one, remove this folder's `__pycache__`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from lodestar_extproc.simulator.addresses import record_at, state_at
from lodestar_extproc.simulator.kernel import run
from lodestar_extproc.simulator.live_requests import NOBODY


@njit(cache=True)
def sweep(addresses: Any, events: Any, until_s: float, first: int) -> tuple[int, int]:
    """Run the engines from *first* on to *until_s*, one after the other.

    Returns the events, and the first engine for which *events* has no room left.
    """
    n_events = 0
    for number in range(first, len(addresses)):
        engine = record_at(addresses[number])
        if engine.next_event_s > until_s:
            continue
        # A request has at most two events in its life.
        if len(events) - n_events < 2 * engine.n_live:
            return n_events, number
        before = n_events
        n_events = run(state_at(addresses[number]), events, before, until_s, NOBODY)
        for event in events[before:n_events]:
            event.engine = number
    return n_events, len(addresses)


@njit(cache=True)
def soonest_s(addresses: Any) -> float:
    """When a step of any engine ends or starts next."""
    found_s = np.inf
    for address in addresses:
        found_s = min(found_s, record_at(address).next_event_s)
    return found_s


@njit(cache=True)
def read_gauges(addresses: Any, out: Any) -> None:
    """Write what each engine's page shows to *out*: requests, KV usage, totals of tokens."""
    for number in range(len(addresses)):
        engine = record_at(addresses[number])
        out[number, 0] = engine.shown_running
        out[number, 1] = engine.shown_waiting
        out[number, 2] = 1.0 - engine.shown_free_blocks / (engine.n_blocks - 1)
        out[number, 3] = engine.generated_tokens
        out[number, 4] = engine.prefix_query_tokens
        out[number, 5] = engine.prefix_hit_tokens
