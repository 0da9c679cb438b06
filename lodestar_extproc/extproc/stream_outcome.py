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


def summary_of(made: Decision | None, answered: str) -> str:
    """A decision for a log line, else the id of the one whose answer was observed."""
    if made is None:
        return f"decision={answered or '-'}"
    return (
        f"decision={made.decision_id} "
        f"request={made.request_id or '-'} endpoint={made.addresses[0]} policy={made.policy} "
        f"reason={made.ranking.reason} priority={made.candidates.request.priority}"
    )
