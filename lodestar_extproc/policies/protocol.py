"""What every policy is: candidates in, ranking out."""

from __future__ import annotations

import random
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lodestar_extproc.decision import Candidates, Ranking
from lodestar_extproc.endpoint import FloatArray


class Policy(Protocol):
    """Ranks the endpoints for one request.

    To rank is a question: it changes neither the policy nor what it is given, so that a policy may
    be asked as often as one likes, by a shadow or an explanation too. It must rank every candidate
    exactly once, with any snapshot the fleet can produce.

    A policy that keeps state (a turn, a session's endpoint) changes it in `dispatched` alone.

    Attributes:
        reads_demand: whether it reads `candidates.demand`, which is counted only for those who do.
        reads_learner: whether it asks a learner, which learns only for those who do.
    """

    name: str
    reads_demand: bool
    reads_learner: bool

    def rank(self, candidates: Candidates, rng: random.Random) -> Ranking:
        """The endpoints from best to worst; *candidates* holds at least one."""
        ...

    def dispatched(self, candidates: Candidates, ranking: Ranking) -> None:
        """The request that this policy ranked left, once; to the first of *ranking*."""
        ...


class Stateless:
    """A policy that keeps nothing of the requests it ranked, and reads nothing that was counted."""

    reads_demand = False
    reads_learner = False

    def dispatched(self, candidates: Candidates, ranking: Ranking) -> None:
        """Nothing to keep."""


def by_cost(cost: FloatArray, rng: random.Random) -> tuple[int, ...]:
    """Indices by rising *cost*, ties in random order.

    >>> by_cost(np.array([3.0, 1.0, 2.0]), random.Random(0))
    (1, 2, 0)
    """
    return in_order(cost, draw_ties(len(cost), rng))


def draw_ties(n: int, rng: random.Random) -> NDArray[np.uint64]:
    """What decides between equal costs, [n]."""
    return np.frombuffer(rng.randbytes(8 * n), np.uint64)


def in_order(cost: FloatArray, ties: NDArray[np.uint64]) -> tuple[int, ...]:
    """Indices by rising *cost*, ties by rising *ties*."""
    return tuple(np.lexsort((ties, cost)).tolist())
