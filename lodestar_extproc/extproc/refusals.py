"""Refusals: what a client is answered from here, instead of by an engine."""

from __future__ import annotations

import orjson

from lodestar_extproc.extproc.events import Reject
from lodestar_extproc.extproc.json_text import InvalidRequest
from lodestar_extproc.extproc.stream_outcome import StreamOutcome
from lodestar_extproc.names import DROPPED_REASON
from lodestar_extproc.routing.unserved import Overloaded

REFUSED = (InvalidRequest, Overloaded)
"""What `of` answers."""
INVALID_REQUEST = "lodestar_invalid_request"
TOO_LARGE = "lodestar_body_too_large"
NO_ENDPOINT = "lodestar_no_endpoint"
OVERLOADED = "lodestar_overloaded"
"""Envoy's access log shows these as the details of a response that we sent."""


def of(error: InvalidRequest | Overloaded) -> tuple[Reject, StreamOutcome]:
    """What a client is answered for *error*, and what has become of the stream."""
    if isinstance(error, Overloaded):
        return overloaded(str(error), error.retry_after_s), StreamOutcome.SHED
    return invalid_request(str(error)), StreamOutcome.REJECTED


def invalid_request(why: str) -> Reject:
    """400: the body could not be read."""
    return Reject(400, _error(why, "invalid_request_error"), INVALID_REQUEST)


def body_too_large(limit_bytes: int) -> Reject:
    """413: the body is longer than what is kept."""
    why = f"the body is longer than {limit_bytes} bytes"
    return Reject(413, _error(why, "invalid_request_error"), TOO_LARGE)


def no_endpoint(why: str) -> Reject:
    """503: no endpoint can serve the request now."""
    reason = ((DROPPED_REASON, "rejected-no-endpoints"),)
    return Reject(503, _error(why, "service_unavailable_error"), NO_ENDPOINT, reason)


def overloaded(why: str, retry_after_s: int) -> Reject:
    """429: the request would be served too late; the client may ask again."""
    headers = (("retry-after", str(retry_after_s)), (DROPPED_REASON, "rejected-saturated"))
    return Reject(429, _error(why, "rate_limit_error"), OVERLOADED, headers)


def _error(message: str, kind: str) -> bytes:
    """An error body as OpenAI's clients read it."""
    error = {"message": message, "type": kind, "param": None, "code": None}
    return orjson.dumps({"error": error})
