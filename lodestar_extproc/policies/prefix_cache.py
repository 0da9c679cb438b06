"""prefix_cache: prefix hit first, within the bounds of balance; the paper's comparator.

Algorithm: if the most and least loaded differ by more than 8 requests in flight, the least loaded.
Else by hit percentage falling, requests in flight rising: the first whose in-flight count is at
most mean + 1 standard deviation. (aibrix `prefix-cache`: imbalance 8, factor 1.)
Cost: O(n log n).
Without a signal: no hit anywhere is least_request.
"""

from __future__ import annotations

import math
import random

import numpy as np

from lodestar_extproc.decision import Candidates, Ranking
from lodestar_extproc.endpoint import FloatArray
from lodestar_extproc.policies.protocol import Stateless, by_cost

# As aibrix's prefix-cache has them by default.
MAX_IMBALANCE_REQUESTS = 8.0
DEVIATION_FACTOR = 1.0


class PrefixCache(Stateless):
    name = "prefix_cache"

    def rank(self, candidates: Candidates, rng: random.Random) -> Ranking:
        counts = candidates.snapshot.in_flight
        by_load = by_cost(counts, rng)
        in_flight: list[float] = counts.tolist()
        if max(in_flight) - min(in_flight) > MAX_IMBALANCE_REQUESTS:
            return Ranking(by_load)
        hit_percent = [100.0 * ratio // 1.0 for ratio in candidates.matched_ratio.tolist()]
        mean = sum(in_flight) / len(in_flight)
        limit = mean + DEVIATION_FACTOR * deviation(counts, mean)
        # Stable: load breaks ties.
        by_hit = sorted(by_load, key=hit_percent.__getitem__, reverse=True)
        within = [i for i in by_hit if in_flight[i] <= limit]
        return Ranking((*within, *(i for i in by_load if i not in within)))


def deviation(counts: FloatArray, mean: float) -> float:
    """As `counts.std()`, which for a few numbers takes ten times as long."""
    apart = counts - mean
    return math.sqrt(float(np.add.reduce(apart * apart)) / len(apart))
