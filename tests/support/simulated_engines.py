"""Small engines with round numbers, for worked examples."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from lodestar_extproc.simulator.accelerators import EngineSpec, StepCost
from lodestar_extproc.simulator.engine import Engine

STEP_S = 0.010
"""Each step of the small engine takes this long, whatever it computes."""


def a_spec(**changes) -> EngineSpec:
    values = {
        "accelerator": "test",
        "cost": StepCost(1e3 * STEP_S, 0.0, 0.0, 0.0, 0.0, 0.0, host_ms=0.0, mixed_ratio=0.0),
        "kv_blocks": 100,
        "token_budget": 64,
        "api_delay_s": 0.0,
    }
    return quiet(EngineSpec(**values | changes))


def quiet(spec: EngineSpec) -> EngineSpec:
    return replace(spec, jitter_cv=0.0, stall_ratio=0.0)


def ids(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.uint64)


def submit(engine: Engine, request: int, prompt: int, output: int = 1, block_ids=None, at_s=0.0):
    """Without block ids, all blocks are the request's own."""
    own = np.arange(prompt // 16, dtype=np.uint64) + np.uint64(1_000_000 * (request + 1))
    engine.submit(request, own if block_ids is None else block_ids, prompt, output, at_s)


def run(engine: Engine, until_s: float = math.inf):
    """(first token times, completion times, cached tokens), each by request."""
    first, end, cached = {}, {}, {}
    for event in engine.advance(until_s):
        (first if event.kind == 0 else end)[event.request] = round(event.at_s, 9)
        cached[event.request] = event.cached_tokens
    return first, end, cached
