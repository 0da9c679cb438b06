"""DecodeSpeed: how long each engine takes for a token, by how many requests it generates for.

It learns from what engines report between two scrapes, and knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lodestar_extproc.endpoint import Endpoint, FloatArray

FORGETTING = 0.99
"""A scrape: at five a second, a memory of 20 s."""
PRIOR_VARIANCE = 4.0
"""Of the batch, in requests²: below it a slope is more noise than measurement."""
MIN_SCRAPES = 5
"""Before a line is drawn through them: one second of scrapes. Set by judgement."""
NOTHING = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
"""Scrapes, and sums of weights, batches, seconds, batches² and batches times seconds."""


class DecodeSpeed:
    """A straight line through (batch, seconds a token) for each engine, by moving averages.

    A step reads the weights once and each sequence's KV cache, so its time is about a + b·batch
    with a, b >= 0; every request of the batch gets one token a step.
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, ...]] = {}

    def observe(self, address: str, batch: float, s_per_token: float) -> None:
        """With *batch* requests each got a token every *s_per_token* seconds."""
        n_scrapes, weight, batches, seconds, squares, products = self._sums.get(address, NOTHING)
        # Plain floats, for numpy would take ten times as long for five.
        self._sums[address] = (
            n_scrapes + 1.0,
            FORGETTING * weight + 1.0,
            FORGETTING * batches + batch,
            FORGETTING * seconds + s_per_token,
            FORGETTING * squares + batch * batch,
            FORGETTING * products + batch * s_per_token,
        )

    def forget(self, address: str) -> None:
        """It is no member any more."""
        self._sums.pop(address, None)

    def tpot_s(self, endpoints: Sequence[Endpoint], batch: FloatArray) -> FloatArray:
        """Time between tokens on each endpoint with *batch* requests there, [n]; NaN if unknown."""
        pairs = zip(endpoints, batch.tolist(), strict=True)
        return np.array([self._tpot_s(e.address, each) for e, each in pairs])

    def _tpot_s(self, address: str, batch: float) -> float:
        n_scrapes, weight, *sums = self._sums.get(address, NOTHING)
        if n_scrapes < MIN_SCRAPES:
            return float("nan")
        mean_batch, mean_s, square, product = (each / weight for each in sums)
        variance = max(0.0, square - mean_batch * mean_batch)
        slope = (product - mean_batch * mean_s) / (variance + PRIOR_VARIANCE)
        # Neither b nor a is below 0.
        slope = min(max(slope, 0.0), mean_s / mean_batch)
        return float(mean_s + slope * (batch - mean_batch))
