"""What every policy is: candidates in, ranking out."""

from __future__ import annotations

import random
from typing import Protocol

import numpy as np

from lodestar_extproc.decision import Candidates, Ranking
from lodestar_extproc.endpoint import FloatArray


class Policy(Protocol):
    """Ranks the endpoints for one request.

    A policy may keep state of its own (a turn counter, an arrival rate); it never changes what it
    is given. It must rank every candidate exactly once, with any snapshot the fleet can produce.
    """

    name: str

    def rank(self, candidates: Candidates, rng: random.Random) -> Ranking:
        """The endpoints from best to worst; *candidates* holds at least one."""
        ...


def by_cost(cost: FloatArray, rng: random.Random) -> tuple[int, ...]:
    """Indices by rising *cost*, ties in random order.

    >>> by_cost(np.array([3.0, 1.0, 2.0]), random.Random(0))
    (1, 2, 0)
    """
    ties = np.frombuffer(rng.randbytes(8 * len(cost)), np.uint64)
    return tuple(np.lexsort((ties, cost)).tolist())
