"""CachePrice: which share of what a cache loses to a new prompt is asked for again.

It remembers prompts for longer than the engines do, and so sees what they would still hold if they
were larger. It knows block hashes and lengths, not what recomputing costs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lodestar_extproc.decision import Candidates
from lodestar_extproc.endpoint import Endpoint, FleetSnapshot, FloatArray
from lodestar_extproc.fleet.prefix_index import PrefixIndex, matched_blocks

REMEMBERED_CACHES = 2.0
"""How much is remembered, in caches of the endpoint."""
MEMORY_CACHES = 2.0
"""How far back the share looks: as many tokens as fill so many caches."""
LOOK_INTERVAL_S = 10.0
"""An engine's capacity may become known after the endpoint."""
ABSENT_S = 600.0
"""An endpoint that was no candidate for this long has left."""


class _Ghost:
    """What one endpoint was given, beyond what its cache can hold.

    Attributes:
        index: None where nothing is cached, or nobody knows how much.
        placed_tokens: that were new to its cache, lately; as many were lost to them.
        missed_tokens: that were asked for again after they were lost, lately.
        seen_at_s: when its endpoint was last a candidate.
    """

    def __init__(self, capacity_tokens: float, tokens_per_block: float) -> None:
        self.capacity_tokens = capacity_tokens
        self.seen_at_s = -math.inf
        self.placed_tokens = 0.0
        self.missed_tokens = 0.0
        self.index: PrefixIndex | None = None
        if capacity_tokens > 0:
            self.index = PrefixIndex(int(REMEMBERED_CACHES * capacity_tokens / tokens_per_block))

    @property
    def share(self) -> float:
        """Missed of lost, 0 to 1."""
        return min(1.0, self.missed_tokens / self.placed_tokens) if self.placed_tokens else 0.0

    def place(self, hashes: Sequence[int], uncached_tokens: float) -> None:
        if self.index is None:
            return
        kept = max(0.0, 1.0 - uncached_tokens / (MEMORY_CACHES * self.capacity_tokens))
        self.placed_tokens = kept * self.placed_tokens + uncached_tokens
        self.missed_tokens *= kept
        self.index.insert(hashes)


class CachePrice:
    """The share for every endpoint, from what arrives and where it goes."""

    def __init__(self) -> None:
        self._ghosts: dict[str, _Ghost] = {}
        self._endpoints: tuple[Endpoint, ...] = ()
        self._look_again_at_s = -math.inf

    def arrived(self, candidates: Candidates) -> None:
        """See what the request would have found, had nothing been lost."""
        hashes = candidates.request.block_hashes
        if not hashes or candidates.request.tokens_per_block <= 0:
            return
        ghosts = self._all(candidates)
        known = matched_blocks((g.index for g in ghosts), hashes)
        longest = max(known)
        missed_blocks = round(longest - float(candidates.matched_ratio.max()) * len(hashes))
        if missed_blocks > 0:
            missed_tokens = missed_blocks * candidates.request.tokens_per_block
            for ghost, n_blocks in zip(ghosts, known, strict=True):
                if n_blocks == longest:
                    ghost.missed_tokens += missed_tokens

    def shares(self, candidates: Candidates) -> FloatArray:
        """Of the tokens lost to a prompt, those that will be asked for again, 0 to 1, [n]."""
        ghosts = (self._ghosts.get(e.address) for e in candidates.snapshot.endpoints)
        return np.array([0.0 if g is None else g.share for g in ghosts])

    def placed(self, candidates: Candidates, chosen: int) -> None:
        """The request went to candidate *chosen*."""
        ghost = self._ghosts.get(candidates.snapshot.endpoints[chosen].address)
        if ghost is not None:
            ghost.place(candidates.request.block_hashes, candidates.uncached_on(chosen))

    def _all(self, candidates: Candidates) -> list[_Ghost]:
        snapshot = candidates.snapshot
        if snapshot.endpoints is not self._endpoints or snapshot.at_s >= self._look_again_at_s:
            self._look(snapshot, candidates.request.tokens_per_block)
        return [self._ghosts[e.address] for e in snapshot.endpoints]

    def _look(self, snapshot: FleetSnapshot, tokens_per_block: float) -> None:
        """Who is there, and how large their caches are."""
        self._endpoints = snapshot.endpoints
        self._look_again_at_s = snapshot.at_s + LOOK_INTERVAL_S
        capacities = snapshot.kv_capacity_tokens.tolist()
        for endpoint, capacity_tokens in zip(snapshot.endpoints, capacities, strict=True):
            ghost = self._ghost(endpoint, capacity_tokens, tokens_per_block)
            ghost.seen_at_s = snapshot.at_s
        since_s = snapshot.at_s - ABSENT_S
        self._ghosts = {a: g for a, g in self._ghosts.items() if g.seen_at_s >= since_s}

    def _ghost(self, endpoint: Endpoint, capacity_tokens: float, tokens_per_block: float) -> _Ghost:
        known = math.isfinite(capacity_tokens) and endpoint.prefix_caching
        capacity_tokens = capacity_tokens if known else 0.0
        ghost = self._ghosts.get(endpoint.address)
        if ghost is None or ghost.capacity_tokens != capacity_tokens:
            ghost = self._ghosts[endpoint.address] = _Ghost(capacity_tokens, tokens_per_block)
        return ghost
