"""StreamOutcome: what became of a stream, for those who count and log."""

from enum import StrEnum

from lodestar_extproc.decision import Decision


class StreamOutcome(StrEnum):
    """What became of a stream; the values are labels that dashboards read."""

    CUT = "cut"
    """It ended before anything could be done."""
    PASSED = "passed"
    """The request is no inference, or Envoy answered it itself: left alone."""
    ROUTED = "chosen"
    """A decision was made, and Envoy was told."""
    LOOKED_UP = "looked_up"
    """The request is for an answer or conversation that one endpoint keeps, and no inference."""
    REJECTED = "rejected"
    """The client was answered 400 or 413."""
    SHED = "shed"
    """The request was predicted to be late everywhere, and answered 429."""
    NO_ENDPOINT = "no_endpoint"
    """The request could go nowhere: Envoy's own policy decided, or the client was answered 503."""
    BAD_ROUTE = "bad_route"
    """The route names a pool, policy or cost that does not exist."""
    OBSERVED = "observed"
    """The stream only observed an answer."""


def summary(outcome: StreamOutcome, decision: Decision | None, answered: str) -> str:
    """What happened on a stream, for a log line; without a word of the prompt.

    Args:
        answered: id of the decision whose answer it observed; empty where it is not known.
    """
    if decision is None:
        return f"verdict={outcome} decision={answered or '-'}"
    return (
        f"verdict={outcome} decision={decision.decision_id} "
        f"request={decision.request_id or '-'} endpoint={decision.addresses[0]} "
        f"policy={decision.policy} reason={decision.ranking.reason} "
        f"priority={decision.candidates.request.priority}"
    )
