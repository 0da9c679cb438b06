"""cache_cost: prefill still to compute plus what decodes hold.

Algorithm: argmin of queued uncached tokens + this request's + context of the decodes + prompts of
the prefills (the default cost of NVIDIA Dynamo's KV router, both weights 1, which counts blocks of
16 tokens; the order is the same).
Cost: O(n log n).
Without a signal: idle endpoints tie at their own uncached tokens.
"""

from __future__ import annotations

import random

from lodestar_extproc.decision import Candidates, Ranking
from lodestar_extproc.policies.protocol import Stateless, by_cost


class CacheCost(Stateless):
    name = "cache_cost"

    def rank(self, candidates: Candidates, rng: random.Random) -> Ranking:
        snapshot = candidates.snapshot
        prefill = snapshot.prefill_uncached_tokens + candidates.uncached_tokens
        held = snapshot.decode_context_tokens + snapshot.prefill_prompt_tokens
        return Ranking(by_cost(prefill + held, rng))
