"""RequestAccount: what a request in flight takes of load and caches, whoever sent it."""

from __future__ import annotations

from collections.abc import Container

from lodestar_extproc.fleet.kv_events.joining import SentPrompt
from lodestar_extproc.fleet.load import InFlightRequest, LoadTable
from lodestar_extproc.fleet.prefix_caches import PrefixCaches


class RequestAccount:
    """Takes and gives back; who is in flight is known by whoever asks."""

    def __init__(self, load: LoadTable, caches: PrefixCaches) -> None:
        self._load = load
        self._caches = caches

    def begin(self, key: str, sent: InFlightRequest, at_s: float) -> None:
        """It is in prefill now, and its prompt is held where it was sent."""
        self._load.start_prefill(key, sent)
        self._hold(sent, at_s)

    def first_token(
        self,
        key: str,
        sent: InFlightRequest,
        at_s: float,
        served: str | None,
        members: Container[str],
    ) -> None:
        """It decodes now, at *served* (None: where it was sent)."""
        self._load.end_prefill(key, sent)
        self.computed(sent, at_s, served, members)
        self._load.start_decode(sent, at_s)

    def computed(
        self, sent: InFlightRequest, at_s: float, served: str | None, members: Container[str]
    ) -> None:
        """Its prompt is in a cache: the one it was sent to, or where a retry, or Envoy, took it."""
        if served is not None and served != sent.address and served in members:
            self._caches.forget(sent.address, sent.request, sent.held)
            sent.address = served
            self._hold(sent, at_s)
        if not sent.computed:
            sent.computed = True
            prompt_tokens = sent.request.prompt_tokens
            self._caches.computed(sent.address, sent.held.expected_tokens, prompt_tokens)

    def end(self, key: str, sent: InFlightRequest) -> None:
        """It is no load any more; its prompt is held yet."""
        if sent.first_token_at_s is None:
            self._load.end_prefill(key, sent)
        else:
            self._load.end_decode(sent)

    def _hold(self, sent: InFlightRequest, at_s: float) -> None:
        generated_tokens = self._load.generated_tokens(sent.address, at_s)
        sent.held = self._caches.hold(sent.address, sent.request, generated_tokens)
        if self._caches.followed:
            capacity_tokens = self._load.kv_capacity_tokens(sent.address)
            self._caches.sent(sent.address, _prompt_of(sent), capacity_tokens)

    def cached(
        self,
        sent: InFlightRequest,
        at_s: float,
        prompt_tokens: int | None = None,
        cached_ratio: float | None = None,
    ) -> None:
        """It is let go of; its prompt stays where it was computed, of so many tokens by usage."""
        if self._caches.followed:
            prompt = _prompt_of(sent, prompt_tokens, cached_ratio)
            self._caches.ended(sent.address, prompt, at_s)


def _prompt_of(
    sent: InFlightRequest, prompt_tokens: int | None = None, cached_ratio: float | None = None
) -> SentPrompt:
    cached_tokens = None
    if prompt_tokens and cached_ratio is not None:
        cached_tokens = round(cached_ratio * prompt_tokens)
    return SentPrompt(
        sent.request,
        sent.dispatched_at_s,
        sent.held.found_blocks,
        sent.held.expected_tokens,
        prompt_tokens,
        cached_tokens,
    )
