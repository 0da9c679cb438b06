"""CompiledWeighing: the same as `PlainWeighing`, in one call of the compiled kernel."""

from __future__ import annotations

import random

import numpy as np

from lodestar_extproc import features
from lodestar_extproc.decision import Candidates
from lodestar_extproc.endpoint import COLUMNS, FloatArray
from lodestar_extproc.fleet.demand import no_demand
from lodestar_extproc.kernel.compiled import Kernel
from lodestar_extproc.kernel.structures import Constants, WeighingArrays
from lodestar_extproc.learning.engine_predictor import MIN_S_PER_KTOKEN
from lodestar_extproc.learning.learner import Learner
from lodestar_extproc.learning.predictor import MIN_TTFT_S, Estimate
from lodestar_extproc.policies import cost as costs
from lodestar_extproc.policies.cost import CostFunction, CostWeights
from lodestar_extproc.policies.protocol import draw_ties
from lodestar_extproc.policies.weighing import Weighed, Weighing

MAX_SIZES = 16
"""Sizes of a choice whose arrays are at hand: a fleet's, its subsets', with some out. Not tuned."""


class CompiledWeighing:
    """By the kernel where it knows predictor and cost function, else as *plain* does.

    It knows predictions that are products of the engine features, and the cost of `Externality`.
    Where somebody has computed the features already, they are used.

    Args:
        kernel: what was compiled.
    """

    def __init__(
        self, learner: Learner, cost: CostFunction, plain: Weighing, kernel: Kernel
    ) -> None:
        self._learner = learner
        self._cost = cost
        self._plain = plain
        self._kernel = kernel
        self._constants = _constants()
        self._arrays_by_size: dict[int, WeighingArrays] = {}

    def weigh(self, candidates: Candidates, rng: random.Random) -> Weighed:
        """See `Weighing`."""
        endpoints = candidates.snapshot.endpoints
        theta, weights = self._learner.law(endpoints), self._cost.weights(candidates)
        if theta is None or weights is None or candidates.has_features:
            return self._plain.weigh(candidates, rng)
        arrays = self._arrays_of(len(endpoints))
        penalty_s = self._learner.penalty_s(endpoints, candidates.snapshot.at_s)
        arrays.ties[:] = draw_ties(len(endpoints), rng)
        arrays.learned(theta, self._learner.limits())
        _give(arrays, candidates, penalty_s)
        _weigh_by(arrays, weights)
        self._kernel.weigh(arrays.call)
        return _told(arrays, penalty_s)

    def row(self, candidates: Candidates, index: int) -> FloatArray:
        """See `Weighing`."""
        if candidates.has_features:
            return self._plain.row(candidates, index)
        arrays = self._arrays_of(len(candidates))
        _give(arrays, candidates, None)
        arrays.struct.row_of = index
        self._kernel.row(arrays.call)
        return arrays.row.copy()

    def _arrays_of(self, n: int) -> WeighingArrays:
        arrays = self._arrays_by_size.get(n)
        if arrays is None:
            if len(self._arrays_by_size) >= MAX_SIZES:
                self._arrays_by_size.clear()
            arrays = self._arrays_by_size[n] = WeighingArrays(n, len(COLUMNS), self._constants)
        return arrays


def _give(arrays: WeighingArrays, candidates: Candidates, penalty_s: FloatArray | None) -> None:
    """What is known of the request and of each candidate."""
    snapshot, demand, struct = candidates.snapshot, candidates.demand, arrays.struct
    if demand is None:
        demand = no_demand(len(candidates))
    arrays.values[:] = snapshot.values
    given = (
        candidates.matched_tokens,
        candidates.prefill_s_per_ktoken,
        demand.service_ratio,
        demand.asked_again_ratio,
        demand.memory_ratio,
    )
    np.concatenate(given, out=arrays.candidates)
    arrays.penalty_s[:] = 0.0 if penalty_s is None else penalty_s
    struct.at_s = snapshot.at_s
    struct.prompt_tokens = candidates.request.prompt_tokens
    struct.arrivals_per_s = demand.arrivals_per_s


def _weigh_by(arrays: WeighingArrays, weights: CostWeights) -> None:
    if arrays.weights == weights:  # as nearly always
        return
    arrays.weights, struct = weights, arrays.struct
    struct.weighs_others = weights.weighs_others
    struct.externality_weight = weights.externality
    struct.decode_weight = weights.decode
    struct.eviction_weight = weights.eviction
    struct.memory_weight_s = weights.memory_s
    struct.backlog_limit_s = weights.backlog_limit_s
    struct.cascade_limit = weights.cascade_limit


def _told(arrays: WeighingArrays, penalty_s: FloatArray | None) -> Weighed:
    """A copy of what the kernel told: the next decision is computed in the same arrays."""
    told = arrays.told.copy()
    estimate, cost_s = Estimate(told[0], told[1], told[2], told[3]), told[4]
    if not arrays.struct.is_finite:
        return Weighed(estimate, cost_s, penalty_s)
    return Weighed(
        estimate,
        cost_s,
        penalty_s,
        tuple(arrays.order.tolist()),
        arrays.row.copy(),
        bool(arrays.struct.is_in_range),
    )


def _constants() -> Constants:
    return Constants(
        scales=tuple(features.SCALES.reshape(-1).tolist()),
        api_delay_s=features.API_DELAY_S,
        min_prefill_s_per_token=features.MIN_PREFILL_S_PER_KTOKEN / 1e3,
        min_step_tokens=features.MIN_STEP_TOKENS,
        max_head_progress_ratio=features.MAX_HEAD_PROGRESS_RATIO,
        kv_usable_ratio=features.KV_USABLE_RATIO,
        min_s_per_ktoken=MIN_S_PER_KTOKEN,
        min_ttft_s=MIN_TTFT_S,
        max_utilisation=costs.MAX_UTILISATION,
        max_memory_used=costs.MAX_MEMORY_USED,
        own_share=costs.OWN_SHARE,
        max_spared_s=costs.MAX_SPARED_S,
    )
