"""Weighing: what each candidate would cost, and their order; numpy's, the plain twin of the kernel.

It asks the learner what a request would take and the cost function what that is worth; it knows
neither whether to believe it nor what to do otherwise.
"""

from __future__ import annotations

import math
import random
from typing import NamedTuple, Protocol

from lodestar_extproc.decision import Candidates
from lodestar_extproc.endpoint import FloatArray
from lodestar_extproc.learning.learner import Learner
from lodestar_extproc.learning.predictor import Estimate
from lodestar_extproc.policies.cost import CostFunction
from lodestar_extproc.policies.protocol import draw_ties, in_order


class Weighed(NamedTuple):
    """What was weighed, and the order that follows from it.

    Attributes:
        cost_s: of each candidate, the lowest is best, [n].
        penalty_s: what recent failures added to it, [n]; None for nothing.
        order: by rising cost, ties as drawn; empty where a cost is no number, or has none.
        row: the features of the first in order, [N_FEATURES]; None where there is no order.
        is_in_range: whether the first in order lies where something was learned.
    """

    estimate: Estimate
    cost_s: FloatArray
    penalty_s: FloatArray | None
    order: tuple[int, ...] = ()
    row: FloatArray | None = None
    is_in_range: bool = False


class Weighing(Protocol):
    """Weighs candidates, as often as it is asked: that changes nothing but *rng*."""

    def weigh(self, candidates: Candidates, rng: random.Random) -> Weighed:
        """See `Weighed`."""
        ...

    def row(self, candidates: Candidates, index: int) -> FloatArray:
        """The features of one of *candidates*, [N_FEATURES]."""
        ...


class PlainWeighing:
    """By numpy: features, prediction, cost and order, one after the other."""

    def __init__(self, learner: Learner, cost: CostFunction) -> None:
        self._learner = learner
        self._cost = cost

    def weigh(self, candidates: Candidates, rng: random.Random) -> Weighed:
        """See `Weighing`."""
        snapshot, features = candidates.snapshot, candidates.features
        ties = draw_ties(len(candidates), rng)
        estimate = self._learner.predict(features, snapshot.endpoints)
        penalty_s = self._learner.penalty_s(snapshot.endpoints, snapshot.at_s)
        cost_s = self._cost.score(estimate, candidates)
        if penalty_s is not None:
            cost_s = cost_s + penalty_s
        if not math.isfinite(cost_s.dot(cost_s)):  # a third of what a sum costs
            return Weighed(estimate, cost_s, penalty_s)
        order = in_order(cost_s, ties)
        row = self.row(candidates, order[0])
        return Weighed(estimate, cost_s, penalty_s, order, row, self._learner.is_in_range(row))

    def row(self, candidates: Candidates, index: int) -> FloatArray:
        """See `Weighing`."""
        return candidates.features.row(index).copy()
