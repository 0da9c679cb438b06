"""power_of_two: the less loaded of two random endpoints.

Algorithm: draw two, take the one with fewer requests in flight; the rest follow by load
(Mitzenmacher, "The power of two choices in randomized load balancing").
Cost: O(n log n).
Without a signal: a fair draw.
"""

from __future__ import annotations

import random

from lodestar_extproc.decision import Candidates, Ranking
from lodestar_extproc.policies.protocol import Stateless, by_cost


class PowerOfTwo(Stateless):
    name = "power_of_two"

    def rank(self, candidates: Candidates, rng: random.Random) -> Ranking:
        in_flight = candidates.snapshot.in_flight
        by_load = by_cost(in_flight, rng)
        pair = rng.sample(range(len(candidates)), min(2, len(candidates)))
        best = min(pair, key=by_load.index)
        return Ranking((best, *(i for i in by_load if i != best)))
