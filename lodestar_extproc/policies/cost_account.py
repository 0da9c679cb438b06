"""LearnedCosts: what a learned choice was weighed by, worked out when somebody asks why."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lodestar_extproc.decision import Candidates
from lodestar_extproc.endpoint import Endpoint, FloatArray
from lodestar_extproc.learning.predictor import Estimate
from lodestar_extproc.policies.cost import CostFunction
from lodestar_extproc.policies.protocol import Policy, Stateless

Interval = Callable[[FloatArray, Sequence[Endpoint]], tuple[FloatArray, FloatArray]]
"""Low and high ends of the interval that holds 80 % of the TTFTs predicted as these, [n] each."""


class LearnedCosts(NamedTuple):
    """See `decision.CostAccount`. It keeps what the choice was made by, and no work is done for it.

    Attributes:
        cost_s: of each candidate, as it was ranked by, [n].
        penalty_s: what recent failures added to it, [n]; None for nothing.
    """

    estimate: Estimate
    cost_s: FloatArray
    penalty_s: FloatArray | None
    function: CostFunction
    fallback: Policy
    interval: Interval

    @property
    def fallback_policy(self) -> str:
        """Its name."""
        return self.fallback.name

    def terms_s(self, candidates: Candidates) -> Mapping[str, FloatArray]:
        """Each part of the cost, [n]; together they are `cost_s`."""
        terms = dict(self.function.terms(self.estimate, candidates))
        failures_s = self.penalty_s
        terms["failures"] = np.zeros(len(candidates)) if failures_s is None else failures_s
        return terms

    def interval_s(self, candidates: Candidates) -> tuple[FloatArray, FloatArray]:
        """Where 80 % of such TTFTs fall, low and high, [n], by the errors known now."""
        return self.interval(self.estimate.ttft_s, candidates.snapshot.endpoints)

    def fallback_choice(self, candidates: Candidates) -> int | None:
        """Where the fallback would have sent it; None for one whose turn is over by now."""
        if not isinstance(self.fallback, Stateless):
            return None
        return self.fallback.rank(candidates, random.Random(0)).order[0]
