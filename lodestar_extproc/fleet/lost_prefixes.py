"""LostPrefixes: which share of what a cache loses to a new prompt is asked for again.

It remembers prompts for longer than the engines do, and so sees what they would still hold if they
were larger. It knows block hashes and lengths, not what recomputing costs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import repeat

import numpy as np

from lodestar_extproc.endpoint import Endpoint, FleetSnapshot, FloatArray
from lodestar_extproc.fleet.prefix_index import PrefixIndex, matched_blocks
from lodestar_extproc.request import InferenceRequest

REMEMBERED_CACHES = 2.0
"""How much is remembered, in caches of the endpoint: what comes back after two caches' worth of
other prompts would not have been kept by any order of eviction. Set by judgement."""
MEMORY_CACHES = 2.0
"""How far back the share looks: as many tokens as fill so many caches. As far as is remembered."""
LOOK_INTERVAL_S = 10.0
"""An engine's capacity may become known, or change, after the endpoint: looked at so often."""


class _Ghost:
    """What one endpoint was given, beyond what its cache can hold.

    Attributes:
        index: None where nothing is cached, or nobody knows how much.
        placed_tokens: that were new to its cache, lately; as many were lost to them.
        missed_tokens: that were asked for again after they were lost, lately.
    """

    def __init__(self, capacity_tokens: float, tokens_per_block: float) -> None:
        self.capacity_tokens = capacity_tokens
        self.placed_tokens = 0.0
        self.missed_tokens = 0.0
        self.index: PrefixIndex | None = None
        if capacity_tokens > 0:
            self.index = PrefixIndex(int(REMEMBERED_CACHES * capacity_tokens / tokens_per_block))

    def place(self, hashes: Sequence[int], uncached_tokens: float) -> None:
        if self.index is None:
            return
        kept = max(0.0, 1.0 - uncached_tokens / (MEMORY_CACHES * self.capacity_tokens))
        self.placed_tokens = kept * self.placed_tokens + uncached_tokens
        self.missed_tokens *= kept
        self.index.insert(hashes)


class LostPrefixes:
    """The share for every endpoint, from what arrives and where it goes."""

    def __init__(self) -> None:
        self._ghosts: dict[str, _Ghost] = {}
        self._look_again_at_s = -math.inf

    def adopt(self, endpoints: Iterable[Endpoint]) -> None:
        """Forget all but *endpoints*; those that are new are seen with the next prompt."""
        stay = {e.address for e in endpoints}
        self._ghosts = {a: g for a, g in self._ghosts.items() if a in stay}
        self._look_again_at_s = -math.inf

    def asked_again(
        self, request: InferenceRequest, endpoints: Sequence[Endpoint], matched_ratio: FloatArray
    ) -> tuple[FloatArray, Sequence[float]]:
        """Of the tokens lost to a prompt, those asked for again, 0 to 1, and *request*'s own, [n].

        Its own, in tokens, are what it would have found had nothing been lost, where that was lost;
        they count among the others. Empty where nothing was.

        Args:
            matched_ratio: [n], of its blocks those that each cache still holds, 0 to 1.
        """
        known = self._ghosts
        ghosts = [known.get(e.address) for e in endpoints]
        missed = self._missed_tokens(request, ghosts, matched_ratio)
        shares = [
            min(1.0, (ghost.missed_tokens + own) / ghost.placed_tokens)
            if ghost is not None and ghost.placed_tokens
            else 0.0
            for ghost, own in zip(ghosts, missed or repeat(0.0), strict=False)
        ]
        return np.array(shares), missed

    def _missed_tokens(
        self, request: InferenceRequest, ghosts: Sequence[_Ghost | None], matched_ratio: FloatArray
    ) -> Sequence[float]:
        hashes = request.block_hashes
        if not hashes or request.tokens_per_block <= 0:
            return ()
        known = matched_blocks([None if g is None else g.index for g in ghosts], hashes)
        longest = max(known)
        # What any cache still holds is not lost to the fleet.
        missed_blocks = round(longest - max(matched_ratio.tolist()) * len(hashes))
        if missed_blocks <= 0:
            return ()
        missed_tokens = missed_blocks * request.tokens_per_block
        return [missed_tokens if n_blocks == longest else 0.0 for n_blocks in known]

    def place(
        self,
        request: InferenceRequest,
        snapshot: FleetSnapshot,
        address: str,
        *,
        uncached_tokens: float,
        missed_tokens: Sequence[float],
    ) -> None:
        """*request*, decided on by *snapshot*, goes to *address*, whose cache makes room for it.

        Args:
            uncached_tokens: of its prompt, those that are new to the cache there.
            missed_tokens: its own, as `asked_again` found them, of the endpoints of *snapshot*.
        """
        for endpoint, missed in zip(snapshot.endpoints, missed_tokens, strict=False):
            if missed:
                self._ghosts[endpoint.address].missed_tokens += missed
        if request.block_hashes and snapshot.at_s >= self._look_again_at_s:
            self._look(snapshot, request.tokens_per_block)
        ghost = self._ghosts.get(address)
        if ghost is not None:
            ghost.place(request.block_hashes, uncached_tokens)

    def _look(self, snapshot: FleetSnapshot, tokens_per_block: float) -> None:
        """Who is there, and how large their caches are."""
        if tokens_per_block <= 0:
            return
        self._look_again_at_s = snapshot.at_s + LOOK_INTERVAL_S
        capacities = snapshot.kv_capacity_tokens.tolist()
        for endpoint, capacity_tokens in zip(snapshot.endpoints, capacities, strict=True):
            known = math.isfinite(capacity_tokens) and endpoint.prefix_caching
            cached_tokens = capacity_tokens if known else 0.0
            ghost = self._ghosts.get(endpoint.address)
            if ghost is None or ghost.capacity_tokens != cached_tokens:
                self._ghosts[endpoint.address] = _Ghost(cached_tokens, tokens_per_block)
