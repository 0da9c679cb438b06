"""SharedPrefixes: prompts of four sizes that share part of themselves with a few others.

As the "prefix" workloads of gangmuk/Lodestar: sizes of 1,000 to 8,000 tokens, about ten requests a
prefix, answers of 100 tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lodestar_extproc.evaluation.workloads.arrivals import OpenLoop, poisson
from lodestar_extproc.evaluation.workloads.blocks import FreshBlocks
from lodestar_extproc.simulator.arrival import BlockIds, VirtualRequest
from lodestar_extproc.simulator.defaults import BLOCK_TOKENS

# Sizes, shares and answers as in gangmuk/Lodestar; the spreads keep two prompts from being alike.
SIZES_TOKENS = (1000, 2000, 4000, 8000)
SIZE_SHARES = (0.4, 0.3, 0.2, 0.1)
SIZE_SPREAD = 0.05
SHARE_SPREAD = 0.2
MIN_SHARE = 0.3
MIN_PROMPT_TOKENS = 64
LIVE_PREFIXES = 40
REQUESTS_PER_PREFIX = 10
OUTPUT_TOKENS, OUTPUT_SPREAD_TOKENS = 100, 10


@dataclass(slots=True)
class _Prefix:
    size_tokens: int
    blocks: BlockIds
    n_used: int = 0


@dataclass(frozen=True, slots=True)
class SharedPrefixes:
    """Prompts of which *share* (0 to 1) is a prefix that ten of them have."""

    share: float

    def generate(self, rate_per_s: float, seed: int, n_requests: int) -> OpenLoop:
        """As a Poisson process."""
        rng = np.random.default_rng(seed)
        return poisson(self._prompts(rng, seed, n_requests), rate_per_s, rng)

    def _prompts(
        self, rng: np.random.Generator, seed: int, n_requests: int
    ) -> Iterator[VirtualRequest]:
        fresh = FreshBlocks(seed)
        live = [self._new_prefix(rng, fresh) for _ in range(LIVE_PREFIXES)]
        for _ in range(n_requests):
            place = int(rng.integers(LIVE_PREFIXES))
            prefix = live[place]
            drawn = prefix.size_tokens * rng.normal(1.0, SIZE_SPREAD)
            prompt_tokens = max(MIN_PROMPT_TOKENS, int(drawn))
            shared = prefix.blocks[: prompt_tokens // BLOCK_TOKENS]
            own = fresh.take(prompt_tokens - BLOCK_TOKENS * len(shared))
            output_tokens = max(2, int(rng.normal(OUTPUT_TOKENS, OUTPUT_SPREAD_TOKENS)))
            yield VirtualRequest(0.0, np.concatenate([shared, own]), prompt_tokens, output_tokens)
            prefix.n_used += 1
            if prefix.n_used == REQUESTS_PER_PREFIX:
                live[place] = self._new_prefix(rng, fresh)

    def _new_prefix(self, rng: np.random.Generator, fresh: FreshBlocks) -> _Prefix:
        size_tokens = int(rng.choice(SIZES_TOKENS, p=SIZE_SHARES))
        share = self.share * max(MIN_SHARE, float(rng.normal(1.0, SHARE_SPREAD)))
        return _Prefix(size_tokens, fresh.take(int(size_tokens * share)))
