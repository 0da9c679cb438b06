"""least_request: the endpoint with the fewest requests in flight.

Algorithm: argmin of requests sent and not ended, counted here; ties at random.
Cost: O(n log n).
Without a signal: an endpoint not heard of has nothing in flight and is tried.
"""

from __future__ import annotations

import random

from lodestar_extproc.decision import Candidates, Ranking
from lodestar_extproc.policies.protocol import Stateless, by_cost


class LeastRequest(Stateless):
    name = "least_request"

    def rank(self, candidates: Candidates, rng: random.Random) -> Ranking:
        return Ranking(by_cost(candidates.snapshot.in_flight, rng))
