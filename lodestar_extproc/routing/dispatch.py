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
    request = decision.candidates.request
    uncached_tokens = decision.candidates.uncached_on(decision.chosen)
    seen = observes and request.streaming
    fleet.dispatch(
        decision.decision_id,
        request,
        decision.address,
        uncached_tokens=uncached_tokens,
        at_s=decision.at_s,
        expected_first_token_at_s=None if seen else decision.at_s + decision.expected_ttft_s,
    )
    if decision.candidates.demand is not None:
        demand.dispatch(
            request,
            decision.candidates.snapshot,
            decision.candidates.demand,
            decision.address,
            uncached_tokens=uncached_tokens,
            service_s=service_s(decision, learner),
        )
