"""round_robin: the endpoints in turn.

Algorithm: the address after the last one chosen, in the order of addresses, so that an endpoint
that joins or leaves does not restart the round.
Cost: O(n log n).
Without a signal: unchanged, it uses none.
"""

from __future__ import annotations

import random

from lodestar_extproc.decision import Candidates, Ranking


class RoundRobin:
    name = "round_robin"

    def __init__(self) -> None:
        self._last = ""

    def rank(self, candidates: Candidates, rng: random.Random) -> Ranking:  # noqa: ARG002
        endpoints = candidates.snapshot.endpoints
        by_address = sorted(range(len(endpoints)), key=lambda i: endpoints[i].address)
        after = [i for i in by_address if endpoints[i].address > self._last]
        order = after + [i for i in by_address if endpoints[i].address <= self._last]
        self._last = endpoints[order[0]].address
        return Ranking(tuple(order))
