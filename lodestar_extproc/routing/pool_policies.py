"""PoolPolicies: who ranks a pool's requests, and who is told that one left.

It knows neither the fleet nor what a decision becomes; each policy keeps its own state.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from lodestar_extproc.decision import Candidates, Ranking, Reason
from lodestar_extproc.policies.protocol import Policy
from lodestar_extproc.request import RequestKind

Shadowed = Sequence[tuple[Policy, Ranking]]
"""What each shadow says of one request."""


class PoolPolicies:
    """The policy in force, the fallback for bodies that could not be read, and the shadows.

    Attributes:
        policy: in force.
        read_demand, read_learner: whether it does, or a shadow.

    Args:
        rng: of who decides.
        shadow_rng: of the shadows, so that a choice is the same with shadows and without.
    """

    def __init__(
        self,
        policy: Policy,
        fallback: Policy,
        shadows: Iterable[Policy],
        *,
        rng: random.Random,
        shadow_rng: random.Random,
    ) -> None:
        self._rng, self._shadow_rng = rng, shadow_rng
        self.adopt(policy, fallback, shadows)

    def adopt(self, policy: Policy, fallback: Policy, shadows: Iterable[Policy]) -> None:
        """Rank by these from now on."""
        self.policy, self._fallback, self._shadows = policy, fallback, tuple(shadows)
        self.read_demand = any(p.reads_demand for p in (policy, *self._shadows))
        self.read_learner = any(p.reads_learner for p in (policy, *self._shadows))

    def rank(self, candidates: Candidates, policy: Policy) -> Ranking:
        """The order of *policy*, where there is a choice and a prompt to choose by."""
        if len(candidates) == 1:
            return Ranking((0,), reason=Reason.ONLY_ENDPOINT)
        if candidates.request.kind is RequestKind.UNKNOWN:
            order = self._fallback.rank(candidates, self._rng).order
            return Ranking(order, reason=Reason.UNPARSED)
        return policy.rank(candidates, self._rng)

    def shadow_rankings(self, candidates: Candidates) -> Shadowed:
        """What the shadows would do, in the state that those who decide brought about."""
        if not self._shadows:
            return ()
        return [(s, s.rank(candidates, self._shadow_rng)) for s in self._shadows]

    def dispatched(
        self, candidates: Candidates, ranking: Ranking, policy: Policy, shadowed: Shadowed
    ) -> None:
        """Tell who ranked that the request left; a shadow, as if it had gone where it said.

        Args:
            policy: was asked by `rank`, and *ranking* is what became of its answer.
        """
        if ranking.reason is Reason.UNPARSED:
            self._fallback.dispatched(candidates, ranking)
        elif ranking.reason is not Reason.ONLY_ENDPOINT:
            policy.dispatched(candidates, ranking)
        for shadow, own in shadowed:
            shadow.dispatched(candidates, own)
