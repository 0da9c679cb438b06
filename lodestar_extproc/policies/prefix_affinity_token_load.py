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

from lodestar_extproc.decision import Candidates, Ranking
from lodestar_extproc.endpoint import FloatArray
from lodestar_extproc.policies.protocol import Stateless, by_cost

# As llm-d's router has them by default.
STICKY_RATIO = 0.8
PEAK_PREFILL_TOKENS_PER_S = 15_928.0
MAX_TTFT_PENALTY_S = 18.0


class PrefixAffinityTokenLoad(Stateless):
    name = "prefix_affinity_token_load"

    def rank(self, candidates: Candidates, rng: random.Random) -> Ranking:
        queued = candidates.snapshot.prefill_uncached_tokens
        order = by_cost(queued + candidates.uncached_tokens, rng)
        ratio = candidates.matched_ratio.tolist()
        sticky = [i for i in order if ratio[i] >= STICKY_RATIO]
        others = [i for i in order if ratio[i] < STICKY_RATIO]
        if not sticky or not others:
            return Ranking(order)
        behind_tokens = _least(queued, sticky) - _least(queued, others)
        if behind_tokens / PEAK_PREFILL_TOKENS_PER_S > MAX_TTFT_PENALTY_S:
            return Ranking(order)
        return Ranking((*sticky, *others))


def _least(tokens: FloatArray, columns: list[int]) -> float:
    return float(min(tokens[columns].tolist()))
