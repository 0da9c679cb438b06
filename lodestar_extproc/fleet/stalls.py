"""StallDetector: which endpoints stand still in the middle of answers. It judges, and changes none.

Evidence is an engine's own counter of generated tokens, where it has one: it stands still while the
engine runs requests. Else it is an answer that is watched: no byte of it comes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lodestar_extproc.endpoint import EndpointMetrics


@dataclass(slots=True)
class _Counter:
    """What an engine's pages showed.

    Attributes:
        first_tokens: how many had come when *generation_tokens* was read: an engine that gives
            nothing else moves its counter by these alone.
        still_since_s: since when it runs requests and generates nothing; None while it does.
    """

    generation_tokens: float
    first_tokens: int
    still_since_s: float | None = None


class StallDetector:
    """Progress of every endpoint, by counters and by watched answers."""

    def __init__(self) -> None:
        self._counters: dict[str, _Counter] = {}
        self._first_tokens: dict[str, int] = {}
        self._watched: dict[str, tuple[str, float]] = {}
        self._progressed_at_s: dict[str, float] = {}

    # -- what happens -------------------------------------------------------------------------

    def watch(self, decision_id: str, address: str, at_s: float) -> None:
        """Every part of this answer, which has begun, will be told."""
        self._watched[decision_id] = address, at_s

    def progressed(self, decision_id: str, at_s: float) -> None:
        """A part of a watched answer came."""
        watched = self._watched.get(decision_id)
        if watched is not None:
            self._watched[decision_id] = watched[0], at_s
            self._progressed_at_s[watched[0]] = at_s

    def first_token(self, address: str, at_s: float) -> None:
        """A first token came from *address*."""
        self._first_tokens[address] = self._first_tokens.get(address, 0) + 1
        self._progressed_at_s[address] = at_s

    def released(self, decision_id: str) -> None:
        """The request is over. Idempotent."""
        self._watched.pop(decision_id, None)

    def scraped(self, address: str, metrics: EndpointMetrics, at_s: float) -> None:
        """The engine told its counters."""
        total, first_tokens = metrics.generation_tokens, self._first_tokens.get(address, 0)
        if total is None or metrics.running_requests is None:
            self._counters.pop(address, None)
            return
        known = self._counters.get(address)
        if known is None:
            self._counters[address] = _Counter(total, first_tokens)
            return
        generated = total - known.generation_tokens
        # Fewer: it restarted.
        moved = generated < 0 or generated > first_tokens - known.first_tokens
        if moved or metrics.running_requests <= 0:
            self._counters[address] = _Counter(total, first_tokens)
            if moved:
                self._progressed_at_s[address] = at_s
        elif known.still_since_s is None:
            known.still_since_s = at_s

    def taken_out(self, address: str, at_s: float) -> None:
        """It was judged: what it holds now is evidence no more."""
        for decision_id in [d for d, (a, _) in self._watched.items() if a == address]:
            del self._watched[decision_id]
        counter = self._counters.get(address)
        if counter is not None and counter.still_since_s is not None:
            counter.still_since_s = at_s

    def forget(self, address: str) -> None:
        """The endpoint has left."""
        self.taken_out(address, 0.0)
        for table in (self._counters, self._first_tokens, self._progressed_at_s):
            table.pop(address, None)

    # -- what is asked ------------------------------------------------------------------------

    def wants_a_witness(self, address: str) -> bool:
        """Whether nothing would show that *address* stands still: no counter, no watched answer."""
        if address in self._counters:
            return False
        return all(watched != address for watched, _ in self._watched.values())

    def still_since_s(self, address: str) -> float | None:
        """Since when *address* has given nothing of what it began; None where it gives, or did.

        An endpoint is still only where others are not: else the cause lies elsewhere.
        """
        counter = self._counters.get(address)
        if counter is not None:
            since_s = counter.still_since_s
        else:
            own = [at_s for watched, at_s in self._watched.values() if watched == address]
            since_s = max(own, default=None)
        if since_s is None:
            return None
        others = (at for a, at in self._progressed_at_s.items() if a != address)
        return since_s if max(others, default=-math.inf) > since_s else None

    @property
    def has_evidence(self) -> bool:
        """Whether any endpoint may stand still; the common case, kept cheap."""
        return bool(self._watched) or any(
            counter.still_since_s is not None for counter in self._counters.values()
        )
