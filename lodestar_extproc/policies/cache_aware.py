"""cache_aware: the longest prefix match, until the fleet is out of balance.

Algorithm: if the most loaded has over 64 requests in flight more than the least and over 1.5 times
as many, the least loaded. Else, if the best match is over 30 % of the prompt, the least loaded of
those with the best match; else the least loaded (sglang-router's cache_aware: 0.3 / 64 / 1.5).
Cost: O(n log n).
Without a signal: least_request.
"""

from __future__ import annotations

import random

from lodestar_extproc.decision import Candidates, Ranking
from lodestar_extproc.policies.protocol import Stateless, by_cost

# As sglang-router's cache_aware has them by default.
MATCH_RATIO = 0.3
IMBALANCE_REQUESTS = 64.0
IMBALANCE_RATIO = 1.5


class CacheAware(Stateless):
    name = "cache_aware"

    def rank(self, candidates: Candidates, rng: random.Random) -> Ranking:
        counts = candidates.snapshot.in_flight
        by_load, in_flight = by_cost(counts, rng), counts.tolist()
        most, least = max(in_flight), min(in_flight)
        match = candidates.matched_ratio.tolist()
        imbalanced = most - least > IMBALANCE_REQUESTS and most > IMBALANCE_RATIO * least
        if imbalanced or max(match) <= MATCH_RATIO:
            return Ranking(by_load)
        # Stable: load breaks ties.
        return Ranking(tuple(sorted(by_load, key=match.__getitem__, reverse=True)))
