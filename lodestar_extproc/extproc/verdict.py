"""Verdict: what became of a stream, for those who count and log."""

from enum import StrEnum


class Verdict(StrEnum):
    """What became of a stream."""

    CUT = "cut"
    """It ended before anything could be done."""
    PASSED = "passed"
    """No inference, or answered by Envoy itself: left alone."""
    CHOSEN = "chosen"
    REJECTED = "rejected"
    SHED = "shed"
    """Predicted to be late everywhere, and answered 429."""
    NO_ENDPOINT = "no_endpoint"
    """None may be chosen: Envoy's own policy decided, or the client was answered 503."""
    BAD_ROUTE = "bad_route"
    """The route names a pool, policy or cost that does not exist."""
    OBSERVED = "observed"
