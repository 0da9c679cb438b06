"""round_robin: the endpoints in turn.

Algorithm: the address after the last one whose turn it was, in the order of addresses, so that an
endpoint that joins or leaves does not restart the round.
Cost: O(n log n).
Without a signal: unchanged, it uses none.
"""

from __future__ import annotations

import random

from lodestar_extproc.decision import Candidates, Ranking


class RoundRobin:
    name = "round_robin"
    reads_demand = False
    reads_learner = False

    def __init__(self) -> None:
        self._last = ""

    def rank(self, candidates: Candidates, rng: random.Random) -> Ranking:  # noqa: ARG002
        return Ranking(self._order(candidates))

    def dispatched(self, candidates: Candidates, ranking: Ranking) -> None:  # noqa: ARG002
        # The turn is taken even where a preference sent the request elsewhere: else requests that
        # all go to one endpoint, for its adapter, would give their turns to the one after it.
        self._last = candidates.snapshot.endpoints[self._order(candidates)[0]].address

    def _order(self, candidates: Candidates) -> tuple[int, ...]:
        endpoints = candidates.snapshot.endpoints
        by_address = sorted(range(len(endpoints)), key=lambda i: endpoints[i].address)
        after = [i for i in by_address if endpoints[i].address > self._last]
        return (*after, *(i for i in by_address if endpoints[i].address <= self._last))
