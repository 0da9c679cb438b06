"""Considering: what a request may go to, and how a policy ranks that. Nothing is decided by it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.decision import Candidates, Ranking
from lodestar_extproc.fleet.demand import Demand
from lodestar_extproc.fleet.fleet import Fleet
from lodestar_extproc.policies.preference import at_keeper, preferred
from lodestar_extproc.policies.protocol import Policy
from lodestar_extproc.request import InferenceRequest, Subset
from lodestar_extproc.routing.admission import Outlook, Ticket, outlook
from lodestar_extproc.routing.feedback import Feedback
from lodestar_extproc.routing.ids import new_id
from lodestar_extproc.routing.kept_answers import KeptAnswers
from lodestar_extproc.routing.pool_policies import PoolPolicies
from lodestar_extproc.routing.unserved import NoEndpoint, shed_if_late


class Considered(NamedTuple):
    """A request with its candidates, ranked.

    Attributes:
        decision_id: what it is known by from here on.
        keeper: where what it goes on from is kept; None where nothing is.
    """

    decision_id: str
    policy: Policy
    candidates: Candidates
    ranking: Ranking
    keeper: str | None


class Considering:
    """Looks at one pool's requests; the parts are the router's.

    Args:
        catch_up: counts those that were decided before.
        rng: of levels, ids and policies.

    Attributes:
        reads_demand: whether it is counted: from the first policy on that reads it, for it costs
            more than a fixed rule does.
    """

    def __init__(
        self,
        pool: str,
        live: LiveSettings,
        fleet: Fleet,
        demand: Demand,
        policies: PoolPolicies,
        feedback: Feedback,
        kept: KeptAnswers,
        catch_up: Callable[[], None],
        rng: random.Random,
    ) -> None:
        self.reads_demand = False
        self._pool, self._live = pool, live
        self._fleet, self._demand = fleet, demand
        self._policies, self._feedback, self._kept = policies, feedback, kept
        self._catch_up, self._rng = catch_up, rng

    def consider(
        self,
        request: InferenceRequest,
        at_s: float,
        subset: Subset | None,
        policy: Policy | None,
        origin: str,
    ) -> Considered:
        """Rank the candidates for *request*.

        Raises:
            NoEndpoint: the pool has none there.
            Overloaded: it may be shed, and is predicted to be late everywhere.
        """
        policies = self._policies
        policy = policies.policy if policy is None else policy
        if policies.read_demand or policy.reads_demand:
            self.reads_demand = True
        if policies.read_learner or policy.reads_learner:
            self._feedback.teaches = True  # from the first on that asks
        request, keeper = self._kept.recalled(request, at_s)
        candidates = self.candidates(request, at_s, subset)
        if not candidates.snapshot.endpoints:
            raise NoEndpoint(f"pool {self._pool} has no endpoint for this request")
        decision_id = f"{self._pool}.{new_id(origin, self._rng)}"
        ranking = self._rank(candidates, policy, keeper)
        if request.is_sheddable:
            slo_s = request.ttft_slo_s or self._live.current.ttft_slo_s
            shed_if_late(ranking, candidates, slo_s)
        return Considered(decision_id, policy, candidates, ranking, keeper)

    def look(self, ticket: Ticket, at_s: float) -> Outlook | None:
        """How a request that is held would fare now; None where nothing is predicted of it."""
        candidates = self.candidates(ticket.request, at_s, ticket.subset)
        if not candidates.snapshot.endpoints:
            return None
        return outlook(candidates, self._rank(candidates, ticket.policy, None))

    def candidates(
        self, request: InferenceRequest, at_s: float, subset: Subset | None = None
    ) -> Candidates:
        """*request* beside all it may go to, on a level that is drawn: what a policy sees."""
        self._catch_up()
        fleet, demand = self._fleet, None
        # What one endpoint keeps has to be asked there again, though it failed there.
        bound = request.keeping is not None and request.keeping.continues is not None
        draw = self._rng.random() if fleet.has_levels else 0.0
        snapshot = fleet.snapshot(at_s, subset, None if bound else request.prompt_key, draw)
        endpoints, tpot_slo_s = (
            snapshot.endpoints,
            request.tpot_slo_s or self._live.current.tpot_slo_s,
        )
        matched = fleet.match(request, endpoints)
        tpot_s = None
        if tpot_slo_s is not None:
            tpot_s = fleet.decode_speed.tpot_s(endpoints, snapshot.in_flight + 1)
        if self.reads_demand and endpoints:
            demand = self._demand.snapshot(
                request, snapshot, matched.sent_ratio, matched.kept_ratio
            )
        return Candidates(
            request,
            snapshot,
            matched.tokens,
            matched.ratio,
            self._feedback.learner.prefill_s_per_ktoken(endpoints),
            adapter_effort=fleet.adapters.effort(request.model, endpoints),
            tpot_s=tpot_s,
            tpot_slo_s=tpot_slo_s,
            demand=demand,
        )

    def _rank(self, candidates: Candidates, policy: Policy, keeper: str | None) -> Ranking:
        ranking = self._policies.rank(candidates, policy)
        if candidates.adapter_effort is not None or candidates.tpot_s is not None:
            ranking = preferred(ranking, candidates, self._live.current.adapter_load_s)
        return ranking if keeper is None else at_keeper(ranking, candidates, keeper)
