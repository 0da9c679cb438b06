"""prefix_affinity_token_load: stick to a warm cache unless it costs too much, then least tokens.

Algorithm: endpoints that hold at least 80 % of the prompt's blocks are sticky. If there are any,
only they are considered, unless the best of them is 18 s of queued tokens (at 15,928 tokens a
second) behind the best of the others. Then argmin of queued uncached tokens plus this request's
own. (llm-d router, prefix-cache-affinity-filter and token-load-scorer, default since August 2026.)
Cost: O(n log n).
Without a signal: no hit anywhere is least tokens in flight.
"""

from __future__ import annotations

import random

import numpy as np

from lodestar_extproc.decision import Candidates, Ranking
from lodestar_extproc.policies.protocol import by_cost

STICKY_RATIO = 0.8
PEAK_PREFILL_TOKENS_PER_S = 15_928.0
MAX_TTFT_PENALTY_S = 18.0


class PrefixAffinityTokenLoad:
    name = "prefix_affinity_token_load"

    def rank(self, candidates: Candidates, rng: random.Random) -> Ranking:
        queued = candidates.snapshot.prefill_uncached_tokens
        order = by_cost(queued + candidates.uncached_tokens, rng)
        sticky = candidates.matched_ratio >= STICKY_RATIO
        if not sticky.any() or sticky.all() or _too_far_behind(queued, sticky):
            return Ranking(order)
        return Ranking((*(i for i in order if sticky[i]), *(i for i in order if not sticky[i])))


def _too_far_behind(queued: np.ndarray, sticky: np.ndarray) -> bool:
    gap_tokens = float(queued[sticky].min() - queued[~sticky].min())
    return gap_tokens / PEAK_PREFILL_TOKENS_PER_S > MAX_TTFT_PENALTY_S
