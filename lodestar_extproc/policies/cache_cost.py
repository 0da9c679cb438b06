"""cache_cost: prefill blocks still to compute plus blocks held by decodes.

Algorithm: argmin of (queued uncached tokens + this request's) / 16 + (context of the decodes +
prompts of the prefills) / 16 (the default cost of NVIDIA Dynamo's KV router, both weights 1).
Cost: O(n log n).
Without a signal: idle endpoints tie at their own uncached tokens.
"""

from __future__ import annotations

import random

from lodestar_extproc.decision import Candidates, Ranking
from lodestar_extproc.policies.protocol import by_cost

BLOCK_TOKENS = 16.0


class CacheCost:
    name = "cache_cost"

    def rank(self, candidates: Candidates, rng: random.Random) -> Ranking:
        snapshot = candidates.snapshot
        prefill = snapshot.prefill_uncached_tokens + candidates.uncached_tokens
        held = snapshot.decode_context_tokens + snapshot.prefill_prompt_tokens
        return Ranking(by_cost((prefill + held) / BLOCK_TOKENS, rng))
