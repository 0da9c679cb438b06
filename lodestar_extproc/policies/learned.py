"""Learned: the model's choice while it can be trusted, the fallback's otherwise.

It knows how to weigh the two; predictions are the learner's, costs the cost function's.
"""

from __future__ import annotations

import random

from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.decision import Candidates, Ranking, Reason
from lodestar_extproc.endpoint import FloatArray
from lodestar_extproc.kernel.compiled import KERNEL, Kernel
from lodestar_extproc.learning.learner import Learner
from lodestar_extproc.policies.compiled_weighing import CompiledWeighing
from lodestar_extproc.policies.cost import CostFunction
from lodestar_extproc.policies.cost_account import LearnedCosts
from lodestar_extproc.policies.protocol import Policy
from lodestar_extproc.policies.weighing import PlainWeighing, Weighed, Weighing

FEW_SAMPLES = 20.0
"""An endpoint with fewer is explored. As many as `live_errors` judges an endpoint by."""
SANE_RATIO, SANE_S = 2.0, 0.1
"""Exploration costs a request at most this: twice the best predicted TTFT, and a little. Set by
judgement."""

Choice = tuple[tuple[int, ...], Reason, float]
"""The order, who decided it and why, and the propensity of its first."""


class Learned:
    """Ranks by the cost function's cost of what the learner predicts.

    Algorithm: the model's order, where the learner trusts the model in general and about the
    endpoint it would choose; else the fallback's. Of the model's requests, `exploration_ratio` go
    to an endpoint that few samples are known of, if its TTFT is predicted to be near the best.

    Cost: about 15 µs for 8 endpoints, 70 without a compiled kernel, or the fallback's too. Without
    a signal: the fallback.

    Args:
        learner: predicts, and says what its word is worth.
        cost: turns predictions into costs.
        fallback: ranks while the model may not.
        kernel: weighs; None for numpy alone.
    """

    name = "learned"
    reads_learner = True

    def __init__(
        self,
        learner: Learner,
        cost: CostFunction,
        fallback: Policy,
        live: LiveSettings,
        kernel: Kernel | None = KERNEL,
    ) -> None:
        self.reads_demand = cost.reads_demand
        self._learner = learner
        self._cost_function = cost
        self._fallback = fallback
        self._live = live
        plain = PlainWeighing(learner, cost)
        self._weighing: Weighing = (
            plain if kernel is None else CompiledWeighing(learner, cost, plain, kernel)
        )

    def rank(self, candidates: Candidates, rng: random.Random) -> Ranking:
        weighed = self._weighing.weigh(candidates, rng)
        order, reason, propensity = self._choose(candidates, weighed, rng)
        row = weighed.row
        if row is None or order[0] != weighed.order[0]:
            row = self._weighing.row(candidates, order[0])
        if not self._learner.is_trained:
            return Ranking(order, reason, propensity=propensity, row=row)
        prediction = weighed.estimate
        account = LearnedCosts(
            prediction,
            weighed.cost_s,
            weighed.penalty_s,
            self._cost_function,
            self._fallback,
            self._learner.interval_s,
        )
        return Ranking(
            order, reason, prediction.ttft_s, propensity, prediction.service_s, account, row
        )

    def dispatched(self, candidates: Candidates, ranking: Ranking) -> None:
        if ranking.reason not in (Reason.MODEL, Reason.EXPLORATION):
            self._fallback.dispatched(candidates, ranking)

    def _choose(self, candidates: Candidates, weighed: Weighed, rng: random.Random) -> Choice:
        order = weighed.order
        if not order:
            return self._fall_back(candidates, Reason.UNTRUSTED, rng)
        best = candidates.snapshot.endpoints[order[0]].address
        reason = self._learner.judge(best, is_in_range=weighed.is_in_range)
        if reason is not Reason.MODEL:
            return self._fall_back(candidates, reason, rng)
        return self._explore(candidates, weighed.estimate.ttft_s, order, rng)

    def _fall_back(self, candidates: Candidates, reason: Reason, rng: random.Random) -> Choice:
        heuristic = self._fallback.rank(candidates, rng)
        return heuristic.order, reason, heuristic.propensity

    def _explore(
        self,
        candidates: Candidates,
        ttft_s: FloatArray,
        order: tuple[int, ...],
        rng: random.Random,
    ) -> Choice:
        """The model's order, or one that begins with an endpoint of which little is known."""
        little_known = self._little_known(candidates, ttft_s)
        ratio = self._live.current.exploration_ratio if little_known else 0.0
        best = order[0]
        chosen = rng.choice(little_known) if rng.random() < ratio else best
        propensity = (1.0 - ratio) * (chosen == best)
        if chosen in little_known:
            propensity += ratio / len(little_known)
        if chosen == best:
            return order, Reason.MODEL, propensity
        rest = tuple(i for i in order if i != chosen)
        return (chosen, *rest), Reason.EXPLORATION, propensity

    def _little_known(self, candidates: Candidates, ttft_s: FloatArray) -> list[int]:
        if self._live.current.exploration_ratio <= 0:
            return []
        few = self._learner.with_fewer(candidates.snapshot.endpoints, FEW_SAMPLES)
        if not few:
            return []
        predicted_s = ttft_s.tolist()
        sane_s = SANE_RATIO * min(predicted_s) + SANE_S
        return [i for i in few if predicted_s[i] <= sane_s]
