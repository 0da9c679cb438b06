"""LostPrefixes: which share of what a cache loses to a new prompt is asked for again.

It remembers prompts for longer than the engines do, and so sees what they would still hold if they
were larger. It knows block hashes and lengths, not what recomputing costs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lodestar_extproc.endpoint import ONE, Endpoint, FleetSnapshot, FloatArray
from lodestar_extproc.fleet.prefix_index import PrefixIndex
from lodestar_extproc.fleet.prefix_tree import NOWHERE, PrefixTree
from lodestar_extproc.request import InferenceRequest

REMEMBERED_CACHES = 2.0
"""How much is remembered, in caches of the endpoint: what comes back after two caches' worth of
other prompts would not have been kept by any order of eviction. Set by judgement."""
MEMORY_CACHES = 2.0
"""How far back the share looks: as many tokens as fill so many caches. As far as is remembered."""
LOOK_INTERVAL_S = 10.0
"""An engine's capacity may become known, or change, after the endpoint: looked at so often."""


_MISSED, _PLACED = 0, 1  # rows
NOTHING_MISSED: FloatArray = np.zeros(0)


@dataclass(frozen=True, slots=True)
class _Ghost:
    """What one endpoint was given, beyond what its cache can hold.

    Attributes:
        index: None where nothing is cached, or nobody knows how much.
        place: of the index in the tree.
    """

    capacity_tokens: float
    index: PrefixIndex | None
    place: int = NOWHERE


class LostPrefixes:
    """The share for every endpoint, from what arrives and where it goes."""

    def __init__(self) -> None:
        self._tree = PrefixTree()
        self._ghosts: dict[str, _Ghost] = {}
        # By place: tokens that were asked for again lately, after they were lost; and those that
        # were new to the cache, to which as many were lost, infinite before the first.
        self._tokens = _no_tokens(NOWHERE + 1)
        self._ratios = _ratio(*self._tokens)
        self._places: tuple[Sequence[Endpoint], NDArray[np.intp]] | None = None
        self._look_again_at_s = -math.inf

    def adopt(self, endpoints: Iterable[Endpoint]) -> None:
        """Forget all but *endpoints*; those that are new are seen with the next prompt."""
        stay = {e.address for e in endpoints}
        for address in [a for a in self._ghosts if a not in stay]:
            self._forget(address)
        self._look_again_at_s = -math.inf

    def placed_tokens(self, address: str) -> float:
        """Tokens that were new to the cache at *address*, lately."""
        return float(self._tokens[_PLACED, self._ghosts[address].place])

    def asked_again(
        self, request: InferenceRequest, endpoints: Sequence[Endpoint], matched_ratio: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Of the tokens lost to a prompt, those asked for again, 0 to 1, and *request*'s own, [n].

        Its own, in tokens, are what it would have found had nothing been lost, where that was lost;
        they count among the others. Empty where nothing was.

        Args:
            matched_ratio: [n], of its blocks those that each cache still holds, 0 to 1.
        """
        places = self._places_of(endpoints)
        own = self._own_missed_tokens(request, places, matched_ratio)
        if not len(own):
            return self._ratios.take(places), own
        missed, placed = self._tokens.take(places, axis=1)
        return _ratio(missed + own, placed), own

    def _own_missed_tokens(
        self, request: InferenceRequest, places: NDArray[np.intp], matched_ratio: FloatArray
    ) -> FloatArray:
        hashes = request.block_hashes
        if not hashes or request.prompt_tokens <= 0 or not request.reads_cache:
            return NOTHING_MISSED
        # What any cache still holds is not lost to the fleet.
        still_blocks = float(matched_ratio[matched_ratio.argmax()]) * len(hashes)
        if round(self._tree.longest_match(hashes) - still_blocks) <= 0:
            return NOTHING_MISSED
        known = self._tree.matched_blocks(hashes).take(places)
        longest = float(np.maximum.reduce(known))
        missed_blocks = round(longest - still_blocks)
        if missed_blocks <= 0:  # known elsewhere alone
            return NOTHING_MISSED
        return np.where(known == longest, missed_blocks * request.tokens_per_block, 0.0)

    def _places_of(self, endpoints: Sequence[Endpoint]) -> NDArray[np.intp]:
        # Consecutive decisions see the same endpoints: look them up once.
        if self._places is None or self._places[0] is not endpoints:
            ghosts = [self._ghosts.get(e.address) for e in endpoints]
            places = [NOWHERE if ghost is None else ghost.place for ghost in ghosts]
            self._places = endpoints, np.array(places, np.intp)
        return self._places[1]

    def place(
        self,
        request: InferenceRequest,
        snapshot: FleetSnapshot,
        address: str,
        *,
        uncached_tokens: float,
        missed_tokens: FloatArray,
    ) -> None:
        """*request*, decided on by *snapshot*, goes to *address*, whose cache makes room for it.

        Args:
            uncached_tokens: of its prompt, those that are new to the cache there.
            missed_tokens: its own, as `asked_again` found them, of the endpoints of *snapshot*.
        """
        if len(missed_tokens):
            places = self._places_of(snapshot.endpoints)
            self._tokens[_MISSED, places] += missed_tokens
            self._ratios[places] = _ratio(*self._tokens.take(places, axis=1))
        if request.block_hashes and snapshot.at_s >= self._look_again_at_s:
            self._look(snapshot, request.tokens_per_block)
        self._place(request, address, uncached_tokens)

    def heard(
        self,
        request: InferenceRequest,
        address: str,
        uncached_tokens: float,
        missed_tokens: Mapping[str, float],
    ) -> None:
        """Another replica sent *request* to *address*; it asks again for these, by endpoint."""
        for lost_at, tokens in missed_tokens.items():
            ghost = self._ghosts.get(lost_at)
            if ghost is not None and ghost.index is not None:
                self._tokens[_MISSED, ghost.place] += tokens
        self._place(request, address, uncached_tokens)

    def _place(self, request: InferenceRequest, address: str, uncached_tokens: float) -> None:
        ghost = self._ghosts.get(address)
        if ghost is None or ghost.index is None:
            return
        kept = max(0.0, 1.0 - uncached_tokens / (MEMORY_CACHES * ghost.capacity_tokens))
        missed_tokens_here = kept * float(self._tokens[_MISSED, ghost.place])
        placed_tokens = float(self._tokens[_PLACED, ghost.place])
        past_tokens = 0.0 if placed_tokens == math.inf else kept * placed_tokens
        self._set(ghost.place, missed_tokens_here, past_tokens + uncached_tokens)
        ghost.index.insert(request.block_hashes)

    def _set(self, place: int, missed_tokens: float, placed_tokens: float) -> None:
        """Keep both, and their share, which every decision reads."""
        self._tokens[_MISSED, place] = missed_tokens
        self._tokens[_PLACED, place] = placed_tokens
        self._ratios[place] = min(missed_tokens / placed_tokens, 1.0) if placed_tokens else 0.0

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
                self._forget(endpoint.address)
                self._ghosts[endpoint.address] = self._new(cached_tokens, tokens_per_block)

    def _new(self, capacity_tokens: float, tokens_per_block: float) -> _Ghost:
        if capacity_tokens <= 0:
            return _Ghost(capacity_tokens, None)
        n_blocks = int(REMEMBERED_CACHES * capacity_tokens / tokens_per_block)
        index = PrefixIndex(n_blocks, self._tree)
        n_more = max(0, index.place + 1 - self._tokens.shape[1])
        self._tokens = np.hstack([self._tokens, _no_tokens(n_more)])
        self._ratios = _ratio(*self._tokens)
        return _Ghost(capacity_tokens, index, index.place)

    def _forget(self, address: str) -> None:
        self._places = None
        ghost = self._ghosts.pop(address, None)
        if ghost is not None and ghost.index is not None:
            self._set(ghost.place, 0.0, math.inf)
            ghost.index.close()


def _ratio(missed_tokens: FloatArray, placed_tokens: FloatArray) -> FloatArray:
    ratio: FloatArray = np.minimum(missed_tokens / placed_tokens, ONE)
    return ratio


def _no_tokens(n_places: int) -> FloatArray:
    return np.repeat([[0.0], [math.inf]], n_places, axis=1)
