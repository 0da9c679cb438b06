"""session_affinity: a session stays where it began; a new one goes to the fewest requests.

Algorithm: a request's session is the client's name for it, else the first block of its prompt. Its
endpoint is kept for 300 s after its last request, while it may be chosen; a session without one is
given that of `least_request`, and the rest of the order is that of `least_request` too (llm-d's
session affinity by `session_id`: a binding here, with that time to live).
Cost: O(n log n), and about 200 bytes a session, of which the last 100,000 are kept.
Without a signal: a request that names no session and is shorter than a block is `least_request`.
"""

from __future__ import annotations

import random
from collections import OrderedDict

from lodestar_extproc.decision import Candidates, Ranking
from lodestar_extproc.policies.protocol import by_cost

BOUND_FOR_S = 300.0
"""As llm-d's session affinity has it by default."""
MAX_SESSIONS = 100_000
"""About 20 MB: more than the sessions that a fleet serves in 300 s."""


class SessionAffinity:
    name = "session_affinity"
    reads_demand = False
    reads_learner = False

    def __init__(self) -> None:
        self._bound: OrderedDict[int, tuple[str, float]] = OrderedDict()

    def rank(self, candidates: Candidates, rng: random.Random) -> Ranking:
        order = by_cost(candidates.snapshot.in_flight, rng)
        session = candidates.request.session_key
        if session is None or session not in self._bound:
            return Ranking(order)
        address, used_at_s = self._bound[session]
        if used_at_s < candidates.snapshot.at_s - BOUND_FOR_S:
            return Ranking(order)
        endpoints = candidates.snapshot.endpoints
        first = next((i for i in order if endpoints[i].address == address), order[0])
        return Ranking((first, *(i for i in order if i != first)))

    def dispatched(self, candidates: Candidates, ranking: Ranking) -> None:
        session = candidates.request.session_key
        if session is None:
            return
        snapshot = candidates.snapshot
        # Where it went, be it by a preference: there its prefix is cached from now on.
        self._bound[session] = (snapshot.endpoints[ranking.order[0]].address, snapshot.at_s)
        self._bound.move_to_end(session)
        self._forget_before(snapshot.at_s - BOUND_FOR_S)

    def _forget_before(self, at_s: float) -> None:
        """Sessions not heard of since *at_s*, and the oldest of too many."""
        while self._bound:
            _, used_at_s = next(iter(self._bound.values()))
            if used_at_s >= at_s and len(self._bound) <= MAX_SESSIONS:
                return
            self._bound.popitem(last=False)
