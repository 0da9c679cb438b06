"""PeerRequests: what other replicas say they have in flight, counted beside our own.

It counts in the same columns and caches as `Fleet`, request by request, so that all of a peer's
can be given back at once. It knows no wire and no peer's clock.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Sequence
from typing import NamedTuple

from lodestar_extproc.fleet.load import InFlightRequest, LoadTable
from lodestar_extproc.fleet.prefix_caches import PrefixCaches
from lodestar_extproc.fleet.request_account import RequestAccount
from lodestar_extproc.request import InferenceRequest

MAX_REQUESTS = 20_000
"""In flight of one peer: twice what a process can have, and 10 MB here. More are left out."""


class PeerRequest(NamedTuple):
    """One request that a peer sent.

    Attributes:
        at_s: when, on our clock.
        first_token_at_s: None while in prefill.
    """

    key: str
    request: InferenceRequest
    address: str
    uncached_tokens: float
    at_s: float
    first_token_at_s: float | None = None


class PeerRequests:
    """By peer and key; a key means nothing beside its peer."""

    def __init__(self, load: LoadTable, caches: PrefixCaches, account: RequestAccount) -> None:
        self._load = load
        self._caches = caches
        self._account = account
        self._addresses: frozenset[str] = frozenset()
        self._of_peer: dict[str, dict[str, InFlightRequest]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._of_peer.values()))

    @property
    def any(self) -> bool:
        """Whether any other replica is heard of."""
        return bool(self._of_peer)

    def keys(self, peer: str) -> Collection[str]:
        """Of the requests that *peer* has in flight, as far as is known."""
        return self._of_peer.get(peer, {}).keys()

    def request(self, peer: str, key: str) -> InferenceRequest | None:
        """The request that *peer* has in flight under *key*; None where it has none."""
        sent = self._of_peer.get(peer, {}).get(key)
        return None if sent is None else sent.request

    def adopt(self, addresses: Iterable[str]) -> None:
        """Count at these endpoints alone; what was at others went with them."""
        self._addresses = frozenset(addresses)
        for peer, requests in self._of_peer.items():
            stay = {k: sent for k, sent in requests.items() if sent.address in self._addresses}
            self._of_peer[peer] = stay

    def sent(self, peer: str, told: PeerRequest) -> bool:
        """Count what *peer* sent, where its endpoint is known here; whether it is new."""
        requests = self._of_peer.setdefault(peer, {})
        if told.key in requests:
            # Told again, for something was missed: perhaps its first token.
            if told.first_token_at_s is not None:
                self.first_token(peer, told.key, told.first_token_at_s, told.address)
            return False
        if told.address not in self._addresses or len(requests) >= MAX_REQUESTS:
            return False
        sent = InFlightRequest(told.address, told.request, told.uncached_tokens, told.at_s)
        requests[told.key] = sent
        self._account.begin(peer + told.key, sent, told.at_s)
        if told.first_token_at_s is not None:
            self.first_token(peer, told.key, told.first_token_at_s)
        return True

    def first_token(self, peer: str, key: str, at_s: float, served: str | None = None) -> None:
        """A first token passed *peer*. Idempotent; unknown keys are ignored."""
        sent = self._of_peer.get(peer, {}).get(key)
        if sent is None or sent.first_token_at_s is not None:
            return
        self._account.first_token(peer + key, sent, at_s, served, self._addresses)
        self._load.saw_first_token(sent.address, at_s)

    def ended(
        self, peer: str, key: str, at_s: float, *, served: str | None, prompt_computed: bool
    ) -> None:
        """Give back what a request of *peer* took. Idempotent."""
        sent = self._of_peer.get(peer, {}).pop(key, None)
        if sent is None:
            return
        self._account.end(peer + key, sent)
        if prompt_computed:
            if not sent.computed:
                self._account.computed(sent, at_s, served, self._addresses)
            self._caches.let_go(sent.address, sent.held)
            self._account.cached(sent, at_s)
        else:
            self._caches.forget(sent.address, sent.request, sent.held)

    def cached(self, most_blocks: int) -> list[tuple[str, list[int]]]:
        """Prompts in all caches, by address, the most recent first: for a peer that knows none."""
        return self._caches.prompts(most_blocks)

    def place(self, prompts: Sequence[tuple[str, Sequence[int]]]) -> None:
        """Take up what a peer found by `cached`: the most recent is touched last."""
        for address, hashes in reversed(prompts):
            self._caches.place(address, hashes)

    def keep(self, peer: str, keys: Container[str]) -> None:
        """*peer* has these alone: what else it had has ended, as far as is known in an engine."""
        for key in [key for key in self._of_peer.get(peer, {}) if key not in keys]:
            self.ended(peer, key, 0.0, served=None, prompt_computed=True)

    def drop(self, peer: str) -> None:
        """Nothing is heard of *peer* any more; what it placed in caches is still there."""
        self.keep(peer, ())
        self._of_peer.pop(peer, None)
