"""AnswerWatch: which answers are watched to their end: a sample, and all that may be wrong.

To watch an answer takes 0.1 to 0.4 ms of CPU a chunk, so a good one is left after its first token.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.fleet.fleet import Fleet
from lodestar_extproc.routing.ended_request import EndedRequest

SHORT_GENERATION_S = 0.5
"""An answer that ends so soon after its first token costs a dozen chunks to watch. A judgement."""


class AnswerWatch:
    """Draws, and remembers whose answers end soon: an abort after one token looks like that."""

    def __init__(self, live: LiveSettings, fleet: Fleet, rng: random.Random) -> None:
        self._live = live
        self._fleet = fleet
        self._rng = rng
        self._ends_soon: set[str] = set()

    def draw(self, address: str | None) -> bool:
        """Whether the answer that begins at *address* is watched; advances the rng."""
        sampled = self._rng.random() < self._live.current.observed_ratio
        return sampled or (address is not None and self._needs_a_witness(address))

    def ended(self, request: EndedRequest) -> None:
        """A request whose decision was used ended."""
        generation_s, address = request.generation_s, request.served
        if generation_s is None or address is None:
            return
        if generation_s < SHORT_GENERATION_S:
            self._ends_soon.add(address)
        else:
            self._ends_soon.discard(address)

    def keep(self, addresses: Iterable[str]) -> None:
        """The endpoints at others are gone: now, or before an answer of theirs ended."""
        self._ends_soon.intersection_update(addresses)

    def _needs_a_witness(self, address: str) -> bool:
        return (
            address in self._ends_soon
            or self._fleet.health.is_suspect(address)
            or self._fleet.stalls.wants_a_witness(address)
        )
