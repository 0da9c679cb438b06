"""lmetric: new prefill tokens times batch size.

Algorithm: argmin of (queued uncached tokens + this request's) x (requests in flight + 1)
(LMETRIC, arXiv 2603.15202, with the queue counted here instead of scraped).
Cost: O(n log n).
Without a signal: idle endpoints tie at their own uncached tokens.
"""

from __future__ import annotations

import random

from lodestar_extproc.decision import Candidates, Ranking
from lodestar_extproc.policies.protocol import Stateless, by_cost


class LMetric(Stateless):
    name = "lmetric"

    def rank(self, candidates: Candidates, rng: random.Random) -> Ranking:
        snapshot = candidates.snapshot
        tokens = snapshot.prefill_uncached_tokens + candidates.uncached_tokens
        return Ranking(by_cost(tokens * (snapshot.in_flight + 1.0), rng))
