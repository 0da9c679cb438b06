"""StallDetector: which endpoints stand still in the middle of answers. It judges, and changes none.

Evidence is an engine's own counter of generated tokens, where it has one: it stands still while the
engine runs requests. Else it is the answers that are watched: no byte of them comes. One may be
silent for a while, behind a parser of tool calls for instance; several at once hardly are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lodestar_extproc.endpoint import EndpointMetrics

SILENCE_S = 1.0
"""An answer that gives nothing for so long is silent: forty tokens of a slow engine. Not tuned."""


@dataclass(slots=True)
class _Counter:
    """What an engine's pages showed.

    Attributes:
        still_since_s: since when it runs requests and generates nothing; None while it does.
    """

    generation_tokens: float
    still_since_s: float | None = None


class StallDetector:
    """Progress of every endpoint, by counters and by watched answers."""

    def __init__(self) -> None:
        self._counters: dict[str, _Counter] = {}
        self._now_s = -math.inf
        self._watched: dict[str, tuple[str, float]] = {}
        self._went_on_at_s: dict[str, float] = {}
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
            self._went_on(watched[0], at_s)

    def _went_on(self, address: str, at_s: float) -> None:
        self._went_on_at_s[address] = self._progressed_at_s[address] = at_s

    def first_token(self, address: str, at_s: float) -> None:
        """A first token came from *address*."""
        self._progressed_at_s[address] = self._now_s = at_s

    def released(self, decision_id: str, address: str, at_s: float, *, whole: bool) -> bool:
        """The request that *address* held is over; *whole* if it was served.

        Returns whether its answer was left in silence.
        """
        _, last_part_s = self._watched.pop(decision_id, (address, at_s))
        if whole:
            self._went_on(address, at_s)
        return not whole and at_s - last_part_s > SILENCE_S

    def scraped(self, address: str, metrics: EndpointMetrics, at_s: float) -> None:
        """The engine told its counters."""
        total = metrics.generation_tokens
        if total is None or metrics.running_requests is None:
            self._counters.pop(address, None)
            return
        known = self._counters.get(address)
        if known is None:
            self._counters[address] = _Counter(total)
            return
        moved = total != known.generation_tokens
        if moved or metrics.running_requests <= 0:
            self._counters[address] = _Counter(total)
            if moved:
                self._went_on(address, at_s)
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
        for table in (self._counters, self._went_on_at_s, self._progressed_at_s):
            table.pop(address, None)

    # -- what is asked ------------------------------------------------------------------------

    def wants_a_witness(self, address: str) -> bool:
        """Whether another answer is to be watched: nothing else tells, or what does is silent."""
        if address in self._counters:
            return False
        return all(self._now_s - then_s > SILENCE_S for then_s in self._last_parts(address))

    def stands_still(self, address: str, at_s: float, patience_s: float) -> bool:
        """Whether *address* has given nothing of what it began for long, while others progress.

        Where nobody progresses the cause lies elsewhere.

        Args:
            patience_s: with a counter, or one silent answer; with n of them an n-th of it.
        """
        counter = self._counters.get(address)
        if counter is not None:
            since_s = counter.still_since_s
        else:
            last = self._last_parts(address)
            n_silent = sum(at_s - then_s > SILENCE_S for then_s in last)
            since_s = max(min(last, default=at_s), self._went_on_at_s.get(address, -math.inf))
            patience_s = max(SILENCE_S, patience_s / max(1, n_silent))
        if since_s is None or at_s - since_s <= patience_s:
            return False
        others = (at for a, at in self._progressed_at_s.items() if a != address)
        return max(others, default=-math.inf) > since_s

    def _last_parts(self, address: str) -> list[float]:
        """When each of its watched answers last gave anything."""
        return [at_s for watched, at_s in self._watched.values() if watched == address]

    @property
    def has_evidence(self) -> bool:
        """Whether any endpoint may stand still; the common case, kept cheap."""
        return bool(self._watched) or any(
            counter.still_since_s is not None for counter in self._counters.values()
        )
