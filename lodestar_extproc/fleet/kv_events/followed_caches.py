"""FollowedCaches: the caches of a pool whose engines tell of them, by address."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from types import MappingProxyType

from lodestar_extproc.fleet.kv_events.corrections import (
    Correction,
    Cut,
    FollowingCounts,
    Length,
    StillThere,
    Unheld,
)
from lodestar_extproc.fleet.kv_events.events import AllCleared, CacheEvent
from lodestar_extproc.fleet.kv_events.followed_cache import FollowedCache
from lodestar_extproc.fleet.kv_events.joining import SentPrompt
from lodestar_extproc.fleet.prefix_index import PrefixIndex
from lodestar_extproc.request import InferenceRequest


class FollowedCaches:
    """Owns what is known of them; corrects the index that it is given."""

    def __init__(self) -> None:
        self._caches: dict[str, FollowedCache] = {}
        self._counts: dict[str, FollowingCounts] = {}
        self._heard_length: Callable[[InferenceRequest, float], None] = lambda _, __: None

    def __bool__(self) -> bool:
        return bool(self._caches)

    @property
    def counts(self) -> Mapping[str, FollowingCounts]:
        """By address, of those that were ever followed."""
        return MappingProxyType(self._counts)

    def get(self, address: str) -> FollowedCache | None:
        """None where its engine tells nothing, or what it told has gaps."""
        return self._caches.get(address)

    def keep(self, addresses: Container[str]) -> None:
        """Forget all but *addresses*."""
        self._caches = {a: c for a, c in self._caches.items() if a in addresses}
        self._counts = {a: c for a, c in self._counts.items() if a in addresses}

    def take(
        self, address: str, index: PrefixIndex, events: Iterable[CacheEvent], at_s: float
    ) -> None:
        """What the engine at *address* has told, in its order."""
        cache = self._caches.get(address)
        if cache is None:
            cache = self._begin(address)
        try:
            for event in events:
                if isinstance(event, AllCleared):
                    index.empty()
                    cache.begin_anew()
                else:
                    cache.take(event, at_s)
            self._correct(index, cache.settle(at_s))
        except OverflowError:
            self.forget(address)

    def _begin(self, address: str) -> FollowedCache:
        counts = self._counts.setdefault(address, FollowingCounts())
        cache = self._caches[address] = FollowedCache(counts)
        return cache

    def forget(self, address: str) -> None:
        """What was told is not all, or no longer so."""
        self._caches.pop(address, None)

    def sent(
        self, address: str, index: PrefixIndex, prompt: SentPrompt, capacity_tokens: float | None
    ) -> None:
        """It is in flight at *address*, whose cache holds so much; *index* holds it already."""
        if (cache := self._caches.get(address)) is not None:
            self._correct(index, cache.sent(prompt, capacity_tokens))

    def never_came(self, address: str, request: InferenceRequest) -> None:
        """It was not computed at *address*."""
        if (cache := self._caches.get(address)) is not None:
            cache.never_came(request)

    def ended(self, address: str, index: PrefixIndex, prompt: SentPrompt, at_s: float) -> None:
        """It has ended at *address*, and its prompt was computed there."""
        if (cache := self._caches.get(address)) is not None:
            self._correct(index, cache.ended(prompt, at_s))

    def tell_lengths_to(self, heard: Callable[[InferenceRequest, float], None]) -> None:
        """*heard* is told of prompts without usage how many tokens they have, as blocks show."""
        self._heard_length = heard

    def _correct(self, index: PrefixIndex, corrections: Sequence[Correction]) -> None:
        """The deepest cuts last: what is cut there is then cut already."""
        cuts: dict[int, Cut] = {}
        for each in corrections:
            match each:
                case Cut():
                    known = cuts.get(id(each.hashes))
                    if known is None or each.n_kept < known.n_kept:
                        cuts[id(each.hashes)] = each
                case Unheld():
                    index.remove(each.hashes)
                case Length():
                    self._heard_length(each.request, each.tokens)
        for cut in cuts.values():
            index.cut(cut.hashes, cut.n_kept, cut.n_gone)
        for each in corrections:
            if isinstance(each, StillThere) and each.n_blocks:
                index.insert(each.hashes[: each.n_blocks])
