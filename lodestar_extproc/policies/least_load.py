"""least_load: queued tokens in seconds, plus a price for a full KV cache.

Algorithm: argmin of (queued uncached tokens + this request's) / 2000 + 0.15 k / (1 - k), k the
KV cache usage, at most 0.999 (smg's least_load with its fallback throughput).
Cost: O(n log n).
Without a signal: KV usage not scraped is estimated from what is in flight.
"""

from __future__ import annotations

import random

import numpy as np

from lodestar_extproc.decision import Candidates, Ranking
from lodestar_extproc.features import kv_usage_ratio
from lodestar_extproc.policies.protocol import Stateless, by_cost

# As smg's least_load has them by default.
PREFILL_TOKENS_PER_S = 2000.0
KV_PRICE_S = 0.15
MAX_KV_USAGE_RATIO = 0.999


class LeastLoad(Stateless):
    name = "least_load"

    def rank(self, candidates: Candidates, rng: random.Random) -> Ranking:
        tokens = candidates.snapshot.prefill_uncached_tokens + candidates.uncached_tokens
        kv_usage = np.minimum(kv_usage_ratio(candidates.snapshot), MAX_KV_USAGE_RATIO)
        cost = tokens / PREFILL_TOKENS_PER_S + KV_PRICE_S * kv_usage / (1.0 - kv_usage)
        return Ranking(by_cost(cost, rng))
