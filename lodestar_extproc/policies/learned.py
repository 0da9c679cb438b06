"""Learned: the model's choice while it can be trusted, the fallback's otherwise.

It knows how to weigh the two; predictions are the learner's, costs the cost function's.
"""

from __future__ import annotations

import math
import random

from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.decision import Candidates, Ranking, Reason
from lodestar_extproc.endpoint import FloatArray
from lodestar_extproc.learning.learner import Learner
from lodestar_extproc.learning.predictor import Estimate
from lodestar_extproc.policies.cost import CostFunction
from lodestar_extproc.policies.cost_account import LearnedCosts
from lodestar_extproc.policies.protocol import Policy, by_cost

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

    Cost: about 70 µs for 8 endpoints, or the fallback's too. Without a signal: the fallback.

    Args:
        learner: predicts, and says what its word is worth.
        cost: turns predictions into costs.
        fallback: ranks while the model may not.
    """

    name = "learned"
    reads_learner = True

    def __init__(
        self, learner: Learner, cost: CostFunction, fallback: Policy, live: LiveSettings
    ) -> None:
        self.reads_demand = cost.reads_demand
        self._learner = learner
        self._cost_function = cost
        self._fallback = fallback
        self._live = live

    def rank(self, candidates: Candidates, rng: random.Random) -> Ranking:
        snapshot = candidates.snapshot
        prediction = self._learner.predict(candidates.features, snapshot.endpoints)
        penalty_s = self._learner.penalty_s(snapshot.endpoints, snapshot.at_s)
        cost = self._cost_function.score(prediction, candidates)
        if penalty_s is not None:
            cost = cost + penalty_s
        order, reason, propensity = self._choose(candidates, prediction, cost, rng)
        if not self._learner.is_trained:
            return Ranking(order, reason, propensity=propensity)
        account = LearnedCosts(
            prediction,
            cost,
            penalty_s,
            self._cost_function,
            self._fallback,
            self._learner.interval_s,
        )
        return Ranking(order, reason, prediction.ttft_s, propensity, prediction.service_s, account)

    def dispatched(self, candidates: Candidates, ranking: Ranking) -> None:
        if ranking.reason not in (Reason.MODEL, Reason.EXPLORATION):
            self._fallback.dispatched(candidates, ranking)

    def _choose(
        self, candidates: Candidates, prediction: Estimate, cost: FloatArray, rng: random.Random
    ) -> Choice:
        if not math.isfinite(cost.dot(cost)):  # a third of what a sum costs
            return self._fall_back(candidates, Reason.UNTRUSTED, rng)
        order = by_cost(cost, rng)
        endpoints = candidates.snapshot.endpoints
        reason = self._learner.judge(candidates.features, endpoints, order[0])
        if reason is not Reason.MODEL:
            return self._fall_back(candidates, reason, rng)
        return self._explore(candidates, prediction.ttft_s, order, rng)

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
        endpoints = candidates.snapshot.endpoints
        if self._learner.knows(endpoints, FEW_SAMPLES):
            return []
        n_samples = self._learner.n_samples(endpoints)
        sane_s = SANE_RATIO * float(ttft_s.min()) + SANE_S
        return [i for i, n in enumerate(n_samples) if n < FEW_SAMPLES and ttft_s[i] <= sane_s]
