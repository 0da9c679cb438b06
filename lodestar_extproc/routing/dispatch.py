"""dispatch(): a decided request leaves: what it takes of the fleet, and adds to demand."""

from __future__ import annotations

from lodestar_extproc.decision import Decision
from lodestar_extproc.fleet.demand import Demand
from lodestar_extproc.fleet.fleet import Fleet
from lodestar_extproc.learning.learner import Learner
from lodestar_extproc.routing.service import service_s


def dispatch(
    decision: Decision, fleet: Fleet, demand: Demand, learner: Learner, *, observes: bool
) -> None:
    """Count it in flight in *fleet*, and in *demand* where the decision read that.

    Args:
        learner: predicts the service that it adds.
        observes: whether first tokens of streamed answers are seen.
    """
    candidates, address = decision.candidates, decision.address
    request, uncached_tokens = candidates.request, candidates.uncached_on(decision.chosen)
    seen = observes and request.streaming
    fleet.dispatch(
        decision.decision_id,
        request,
        address,
        uncached_tokens=uncached_tokens,
        at_s=decision.at_s,
        expected_first_token_at_s=None if seen else decision.at_s + decision.expected_ttft_s,
    )
    if candidates.demand is not None:
        demand.dispatch(
            request,
            candidates.snapshot,
            candidates.demand,
            address,
            uncached_tokens=uncached_tokens,
            service_s=service_s(decision, learner),
        )
