"""Goodput: a cost function for those who promise a TTFT: as many requests within it as can be.

It knows the bound of each request and how sure predictions are, not who makes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import ndtr

from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.decision import Candidates
from lodestar_extproc.endpoint import Endpoint, FloatArray
from lodestar_extproc.learning.predictor import Estimate
from lodestar_extproc.policies.cost import CostWeights, Externality

Interval = Callable[[FloatArray, Sequence[Endpoint]], tuple[FloatArray, FloatArray]]
"""Low and high ends of the interval that holds 80 % of the TTFTs predicted as these, [n] each."""

LATE_WEIGHT = 3.0
"""Of a late request, in bounds: it costs what three of them waited. Set by judgement."""
BACKLOG_RATIO = 0.5
"""Of the bound: what comes to a longer backlog, with work of its own, is likely late anyhow."""
OWN_WEIGHT = 0.1
"""Of endpoints that meet the bound alike, or miss it alike, the sooner is the better."""
INTERVAL_DEVIATIONS = 2.563
"""From the 10 % to the 90 % quantile of a normal distribution, in standard deviations."""
MIN_DEVIATION = 1e-3
"""Of log TTFT: a prediction that was never wrong is taken to be off by 0.1 %."""


class Goodput:
    """Few late requests: one that comes after its bound S costs as much as a wait of three S.

        cost = 3·S·P(TTFT > S) + (cost to others) + 0.1·p

    TTFT is taken for log-normal, with the ends of the learned interval for its 10 % and 90 %
    quantiles. The cost to others is that of `Externality` with the backlog v cut off at S/2: many
    of those who come to a longer one are late with or without this request. So a request that is
    late everywhere goes where it takes the least from others, and a crowded endpoint may stay so
    for the good of the rest.

    Args:
        externality: what a request costs others; and all of the cost for one without a bound.
        interval_s: how sure the predictions are.
        live: `ttft_slo_s` is the S of requests that name none.
    """

    name = "goodput"
    reads_demand = True

    def __init__(self, externality: Externality, interval_s: Interval, live: LiveSettings) -> None:
        self._externality = externality
        self._interval_s = interval_s
        self._live = live

    def score(self, estimate: Estimate, candidates: Candidates) -> FloatArray:
        """What being late costs the request, and the request others, [n]."""
        slo_s = candidates.request.ttft_slo_s or self._live.current.ttft_slo_s
        if slo_s is None:
            return self._externality.score(estimate, candidates)
        backlog_s = np.minimum(estimate.backlog_s, BACKLOG_RATIO * slo_s)
        cost = self._externality.score(estimate._replace(backlog_s=backlog_s), candidates)
        late = self.late_ratio(estimate, candidates.snapshot.endpoints, slo_s)
        return cost - (1.0 - OWN_WEIGHT) * estimate.ttft_s + LATE_WEIGHT * slo_s * late

    def terms(self, estimate: Estimate, candidates: Candidates) -> dict[str, FloatArray]:
        """See `CostFunction`."""
        slo_s = candidates.request.ttft_slo_s or self._live.current.ttft_slo_s
        if slo_s is None:
            return self._externality.terms(estimate, candidates)
        backlog_s = np.minimum(estimate.backlog_s, BACKLOG_RATIO * slo_s)
        terms = self._externality.terms(estimate._replace(backlog_s=backlog_s), candidates)
        late = self.late_ratio(estimate, candidates.snapshot.endpoints, slo_s)
        return terms | {
            "own_ttft": OWN_WEIGHT * estimate.ttft_s,
            "late": LATE_WEIGHT * slo_s * late,
        }

    def weights(self, candidates: Candidates) -> CostWeights | None:
        """Without a bound those of the cost to others; the kernel knows no bound."""
        slo_s = candidates.request.ttft_slo_s or self._live.current.ttft_slo_s
        return self._externality.weights(candidates) if slo_s is None else None

    def late_ratio(
        self, estimate: Estimate, endpoints: Sequence[Endpoint], slo_s: float
    ) -> FloatArray:
        """P(TTFT > *slo_s*), 0 to 1, [n]."""
        low, high = np.log(self._interval_s(estimate.ttft_s, endpoints))
        deviation = np.maximum((high - low) / INTERVAL_DEVIATIONS, MIN_DEVIATION)
        late: FloatArray = ndtr((0.5 * (low + high) - np.log(slo_s)) / deviation)
        return late
