"""random: any endpoint, each with equal chance.

Algorithm: a uniform shuffle.
Cost: O(n).
Without a signal: unchanged, it uses none.
"""

from __future__ import annotations

import random

from lodestar_extproc.decision import Candidates, Ranking
from lodestar_extproc.policies.protocol import Stateless


class RandomChoice(Stateless):
    name = "random"

    def rank(self, candidates: Candidates, rng: random.Random) -> Ranking:
        order = list(range(len(candidates)))
        rng.shuffle(order)
        return Ranking(tuple(order), propensity=1.0 / len(order))
