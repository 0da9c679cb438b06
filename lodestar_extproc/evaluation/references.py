"""Reference policies that know the engines' true coefficients, which no router can.

They bound what measuring load can take, and say at which rate a fleet is saturated.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from lodestar_extproc.decision import Candidates, Ranking
from lodestar_extproc.endpoint import FloatArray
from lodestar_extproc.policies.protocol import Stateless, by_cost
from lodestar_extproc.simulator.machine import Machine

STEP_TOKENS = 2048.0  # the token budget of the simulated engines, vLLM's default


class LMetricBySpeed(Stateless):
    """lmetric times the engine's true time a token."""

    name = "lmetric_by_speed"

    def __init__(self, machines: Sequence[Machine]) -> None:
        self._ms_per_token = {m.endpoint.address: m.engine.spec.cost.per_token_ms for m in machines}

    def rank(self, candidates: Candidates, rng: random.Random) -> Ranking:
        snapshot = candidates.snapshot
        speed = np.array([self._ms_per_token[e.address] for e in snapshot.endpoints])
        tokens = snapshot.prefill_uncached_tokens + candidates.uncached_tokens
        return Ranking(by_cost(tokens * (snapshot.in_flight + 1.0) * speed, rng))


class Conductor(Stateless):
    """Least TTFT by the true step time of each engine, as far as counters tell its queue.

    After the estimate of Mooncake's conductor (https://arxiv.org/abs/2407.00079): queued and own
    prefill, and the steps it takes beside the decodes.
    """

    name = "conductor"

    def __init__(self, machines: Sequence[Machine]) -> None:
        self._coefficients = {m.endpoint.address: _coefficients(m) for m in machines}

    def rank(self, candidates: Candidates, rng: random.Random) -> Ranking:
        return Ranking(by_cost(self._ttft_s(candidates), rng))

    def _ttft_s(self, candidates: Candidates) -> FloatArray:
        snapshot, own = candidates.snapshot, candidates.uncached_tokens
        rows = np.array([self._coefficients[e.address] for e in snapshot.endpoints])
        per_token, base, per_kcontext, per_mpair = rows.T
        tokens = snapshot.prefill_uncached_tokens + own
        step_ms = base + per_kcontext * snapshot.decode_context_tokens / 1e3
        pairs = own * (candidates.request.prompt_tokens - own / 2)
        ttft_ms: FloatArray = (
            per_token * tokens + step_ms * np.ceil(tokens / STEP_TOKENS) + per_mpair * pairs / 1e6
        )
        return ttft_ms / 1e3


def _coefficients(machine: Machine) -> tuple[float, float, float, float]:
    cost = machine.engine.spec.cost
    return cost.per_token_ms, cost.base_ms, cost.per_kcontext_ms, cost.per_mpair_ms
