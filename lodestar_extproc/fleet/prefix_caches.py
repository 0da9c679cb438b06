"""PrefixCaches: what the endpoints' prefix caches hold, as far as it can be believed.

An index of each remembers what was sent where; what the engine says of its own cache bounds that:
whether it caches at all, in blocks of which size, and how much of what was matched it really found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.endpoint import ONE, Endpoint, EndpointMetrics, FloatArray
from lodestar_extproc.fleet.cache_belief import CacheBelief
from lodestar_extproc.fleet.kv_events.events import CacheEvent
from lodestar_extproc.fleet.kv_events.followed_caches import FollowedCaches
from lodestar_extproc.fleet.kv_events.joining import SentPrompt
from lodestar_extproc.fleet.prefix_index import HeldRun, PrefixIndex
from lodestar_extproc.fleet.prefix_tree import NOWHERE, PrefixTree
from lodestar_extproc.request import BLOCK_BYTES, InferenceRequest

DEFAULT_KV_CAPACITY_TOKENS = 100_000.0
"""Until an engine reports its own: the index must be bounded before the first scrape."""
COARSE_BLOCKS = 2.0
"""An engine's blocks from so many of ours on are heeded: finer ones differ by less than what a
token's bytes are uncertain by."""
FOLLOWED_CAPACITY = 2.0
"""Of its engine's, what an index may hold whose engine tells what it gives up: a bound on memory,
for prompts that were not found among the engine's blocks."""


class PrefixMatch(NamedTuple):
    """How much of a prompt each cache holds, all of [n].

    Attributes:
        tokens: that are believed to be found there.
        ratio: the share of its full blocks that they are.
        sent_ratio: the share of its full blocks that were sent there and not displaced since.
        kept_ratio: that, as far as the engine bears it out, however coarse its blocks.
    """

    tokens: FloatArray
    ratio: FloatArray
    sent_ratio: FloatArray
    kept_ratio: FloatArray


class HeldPrompt(NamedTuple):
    """What one request in flight holds of a cache.

    Attributes:
        last: the end of its prompt in the index; None where nothing is cached.
        expected_tokens: of its prompt, those that the cache should have held before it came.
        found_blocks: of its blocks, those that had been sent there before.
    """

    last: HeldRun | None
    expected_tokens: float
    found_blocks: int = 0


NOTHING_HELD = HeldPrompt(None, 0.0)


class PrefixCaches:
    """The index of every endpoint, and what its engine says of its cache."""

    def __init__(self, live: LiveSettings) -> None:
        self._live = live
        self._tree = PrefixTree()
        self._indexes: dict[str, PrefixIndex | None] = {}
        self._endpoints: Sequence[Endpoint] = ()
        self._places: NDArray[np.intp] = np.zeros(0, np.intp)
        self._belief = CacheBelief()
        self.followed = FollowedCaches()
        self._block_tokens: dict[str, float] = {}
        self._caches_nothing: set[str] = set()

    def as_told(self, endpoint: Endpoint) -> Endpoint:
        """*endpoint*, or the same without a prefix cache where its engine says that it has none."""
        if endpoint.address not in self._caches_nothing:
            return endpoint
        return replace(endpoint, prefix_caching=False)

    def adopt(
        self, endpoints: Sequence[Endpoint], capacity_tokens: Callable[[str], float | None]
    ) -> None:
        """Know *endpoints* alone; those that stay keep what is known, in caches of that capacity.

        Args:
            capacity_tokens: of the endpoint at an address; None where nobody knows.
        """
        before = self._indexes
        self._indexes = {e.address: self._sized(e, capacity_tokens(e.address)) for e in endpoints}
        for address, index in before.items():
            if index is not None and self._indexes.get(address) is None:
                index.close()
        self._endpoints, self._places = endpoints, self._places_among(endpoints)
        self._block_tokens = {a: n for a, n in self._block_tokens.items() if a in self._indexes}
        self._caches_nothing &= self._indexes.keys()
        self._belief.keep(self._indexes)
        self.followed.keep({a for a, index in self._indexes.items() if index is not None})

    def _sized(self, endpoint: Endpoint, capacity_tokens: float | None) -> PrefixIndex | None:
        if not endpoint.prefix_caching:
            return None
        known = DEFAULT_KV_CAPACITY_TOKENS if capacity_tokens is None else capacity_tokens
        n_blocks = self._n_blocks(endpoint.address, known)
        index = self._indexes.get(endpoint.address)
        if index is None:
            return PrefixIndex(n_blocks, self._tree)
        index.resize(n_blocks)
        return index

    def _n_blocks(self, address: str, tokens: float) -> int:
        if (followed := self.followed.get(address)) is not None and followed.knows(tokens):
            tokens *= FOLLOWED_CAPACITY
        return int(tokens * self._blocks_per_token) or 1

    @property
    def _blocks_per_token(self) -> float:
        return self._live.current.bytes_per_token / BLOCK_BYTES

    # -- what a decision reads ------------------------------------------------------------------

    def match(self, request: InferenceRequest, endpoints: Sequence[Endpoint]) -> PrefixMatch:
        """How much of *request*'s prompt each of *endpoints* holds."""
        if not (hashes := request.block_hashes) or not request.reads_cache:
            nothing = np.zeros(len(endpoints))
            return PrefixMatch(nothing, nothing, nothing, nothing)
        known = endpoints is self._endpoints
        places = self._places if known else self._places_among(endpoints)
        blocks = self._tree.matched_blocks(hashes).take(places)
        tokens_per_block = request.tokens_per_block
        tokens, n_blocks = blocks * tokens_per_block, float(len(hashes))
        most = max(request.prompt_tokens - 1.0, 0.0)  # the last one is always computed
        if n_blocks * tokens_per_block > most:
            np.minimum(tokens, most, out=tokens)
        ratio = np.divide(blocks, n_blocks, out=blocks)
        is_coarse = self._has_coarse_blocks(tokens_per_block)
        if self._belief.is_whole and not is_coarse and not self.followed:
            return PrefixMatch(tokens, ratio, ratio, ratio)
        sent_tokens, ratios = tokens.tolist(), ratio.tolist()
        believed = np.array(
            [
                self._believed(e.address, request, sent_tokens[i], round(ratios[i] * n_blocks))
                for i, e in enumerate(endpoints)
            ]
        )
        shares = np.divide(believed, tokens, out=np.zeros_like(tokens), where=tokens > 0)
        found = ratio * np.minimum(shares, ONE)
        if not is_coarse:
            return PrefixMatch(believed, found, ratio, found)
        kept = [self._kept_ratio(e.address, ratios[i], found[i]) for i, e in enumerate(endpoints)]
        return PrefixMatch(believed, found, ratio, np.array(kept))

    def belief_ratio(self, endpoint: Endpoint) -> float:
        """The share of what was sent to *endpoint* that is believed; 0 where nothing is cached."""
        return self._belief.ratio(endpoint.address) if endpoint.prefix_caching else 0.0

    def _believed(
        self, address: str, request: InferenceRequest, sent_tokens: float, sent_blocks: int
    ) -> float:
        if (followed := self.followed.get(address)) is not None:
            return followed.tokens(request, sent_blocks)
        whole_tokens = self._in_whole_blocks(address, sent_tokens, request.tokens_per_block)
        return whole_tokens * self._belief.ratio(address)

    def _kept_ratio(self, address: str, sent_ratio: float, found_ratio: float) -> float:
        followed = self.followed.get(address) is not None
        return found_ratio if followed else sent_ratio * self._belief.ratio(address)

    def _in_whole_blocks(self, address: str, tokens: float, tokens_per_block: float) -> float:
        """Of *tokens*, those that fill blocks of the engine's own: it finds nothing else again."""
        block_tokens = self._block_tokens.get(address, 0.0)
        if not block_tokens or block_tokens < COARSE_BLOCKS * tokens_per_block:
            return tokens
        return tokens // block_tokens * block_tokens

    def _has_coarse_blocks(self, tokens_per_block: float) -> bool:
        coarsest_tokens = max(self._block_tokens.values(), default=0.0)
        return coarsest_tokens > 0 and coarsest_tokens >= COARSE_BLOCKS * tokens_per_block

    def _places_among(self, endpoints: Sequence[Endpoint]) -> NDArray[np.intp]:
        """Where each of *endpoints* stands in what the tree says, [n]."""
        indexes = [self._indexes[e.address] for e in endpoints]
        return np.array([NOWHERE if index is None else index.place for index in indexes], np.intp)

    # -- what was sent where --------------------------------------------------------------------

    def hold(self, address: str, request: InferenceRequest, generated_tokens: float) -> HeldPrompt:
        """*request*'s prompt goes to *address*, and stays in its cache while it is in flight.

        Args:
            generated_tokens: what the requests that decode there hold beside their prompts.
        """
        index = self._indexes[address]
        if index is None:
            return NOTHING_HELD
        index.set_aside(int(generated_tokens * self._blocks_per_token))
        last, n_new = index.hold(request.block_hashes)
        tokens_per_block = request.tokens_per_block
        if not request.reads_cache:
            return HeldPrompt(last, 0.0)
        n_found = len(request.block_hashes) - n_new
        if (followed := self.followed.get(address)) is not None:
            return HeldPrompt(last, followed.tokens(request, n_found), n_found)
        tokens = min(n_found * tokens_per_block, max(request.prompt_tokens - 1.0, 0.0))
        return HeldPrompt(last, self._in_whole_blocks(address, tokens, tokens_per_block), n_found)

    def let_go(self, address: str, held: HeldPrompt) -> None:
        """A request at *address* has ended: what it held may make room for others from now on."""
        index = self._indexes[address]
        if index is not None and held.last is not None:
            index.let_go(held.last)

    def forget(self, address: str, request: InferenceRequest, held: HeldPrompt) -> None:
        """*request*'s prompt never reached the cache of *address*."""
        self.let_go(address, held)
        self.followed.never_came(address, request)
        index = self._indexes[address]
        if index is not None:
            index.remove(request.block_hashes)

    def prompts(self, most_blocks: int) -> list[tuple[str, list[int]]]:
        """What each cache should hold, by address, the most recent first; each has its share."""
        share = most_blocks // max(1, len(self._indexes))
        return [
            (address, hashes)
            for address, index in self._indexes.items()
            if index is not None
            for hashes in index.prompts(share)
        ]

    def place(self, address: str, hashes: Sequence[int]) -> None:
        """A prompt is said to be in the cache of *address*."""
        index = self._indexes.get(address)
        if index is not None:
            index.insert(hashes)

    def clear(self, address: str) -> None:
        """The engine has lost everything."""
        self.followed.forget(address)
        index = self._indexes.get(address)
        if index is not None:
            index.clear()

    # -- what engines say -----------------------------------------------------------------------

    def computed(self, address: str, expected_tokens: float, prompt_tokens: float) -> None:
        """A prompt was computed at *address*, of which `hold` had expected so much there."""
        if self._indexes.get(address) is not None:
            self._belief.expected(address, expected_tokens, prompt_tokens)

    def reported(self, address: str, expected_tokens: float, found_tokens: float) -> None:
        """An answer from *address* told how much of its prompt was found there."""
        if self._indexes.get(address) is not None:
            self._belief.found(address, expected_tokens, found_tokens)

    def told(self, address: str, events: Iterable[CacheEvent], at_s: float) -> None:
        """The engine told of its blocks, one by one."""
        if (index := self._indexes.get(address)) is not None:
            self.followed.take(address, index, events, at_s)

    def sent(self, address: str, prompt: SentPrompt, capacity_tokens: float | None) -> None:
        """A request was sent to *address*, after `hold`."""
        if (index := self._indexes.get(address)) is not None:
            self.followed.sent(address, index, prompt, capacity_tokens)

    def ended(self, address: str, prompt: SentPrompt, at_s: float) -> None:
        """A request at *address*, after `let_go`, whose prompt was computed there."""
        if (index := self._indexes.get(address)) is not None:
            self.followed.ended(address, index, prompt, at_s)

    def scraped(self, address: str, metrics: EndpointMetrics) -> bool:
        """Heed what the engine says of its cache; True where it now says that it has none, or one.

        `adopt` is to follow then.
        """
        index, capacity_tokens = self._indexes[address], metrics.kv_capacity_tokens
        if index is not None and capacity_tokens is not None:
            index.resize(self._n_blocks(address, capacity_tokens))
        if metrics.cache_block_tokens:
            self._block_tokens[address] = metrics.cache_block_tokens
        queries, hits = metrics.prefix_query_tokens, metrics.prefix_hit_tokens
        if queries is not None and hits is not None:
            # What comes from a cache beside the engine is as good as found in its own.
            self._belief.counted(address, queries, hits + (metrics.external_hit_tokens or 0.0))
        if metrics.prefix_caching is None:
            return False
        was_off, is_off = address in self._caches_nothing, not metrics.prefix_caching
        if is_off:
            self._caches_nothing.add(address)
        else:
            self._caches_nothing.discard(address)
        return was_off is not is_off
