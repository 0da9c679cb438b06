"""What passes between Envoy and an exchange, as frozen values: events in, replies out.

It knows the order of an HTTP exchange and nothing of protobuf (`wire.py` does).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import ClassVar, TypeAlias

from lodestar_extproc.request import Subset

Content: TypeAlias = bytes | memoryview
"""Bytes of a request's body; of a long one where they lie in Envoy's message, for a copy of 10 MB
holds up the loop for 8 ms."""


class BodyMode(IntEnum):
    """How Envoy sends a body; numbered as in its `ProcessingMode.BodySendMode`."""

    NONE = 0
    STREAMED = 1
    BUFFERED = 2
    BUFFERED_PARTIAL = 3
    FULL_DUPLEX_STREAMED = 4


class Phase(StrEnum):
    """The part of an HTTP exchange a message belongs to; named as Envoy's messages are."""

    REQUEST_HEADERS = "request_headers"
    REQUEST_BODY = "request_body"
    REQUEST_TRAILERS = "request_trailers"
    RESPONSE_HEADERS = "response_headers"
    RESPONSE_BODY = "response_body"
    RESPONSE_TRAILERS = "response_trailers"


class MessageKind(StrEnum):
    """What an event is to the order of a stream; trailers and the last part both end a body."""

    REQUEST_HEADERS = "request headers"
    REQUEST_WITHOUT_BODY = "request without a body"
    REQUEST_PART = "part of a request body"
    REQUEST_END = "end of a request body"
    RESPONSE_HEADERS = "response headers"
    RESPONSE_PART = "part of an answer"
    RESPONSE_END = "end of an answer"


Headers = tuple[tuple[str, str], ...]
"""Names in lower case, and values."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What the first message says of its stream.

    Attributes:
        observing: Envoy does not wait for replies, and drops them.
        pool: the cluster the route chose, where the filter sends it.
    """

    observing: bool = False
    request_body_mode: BodyMode = BodyMode.BUFFERED
    response_body_mode: BodyMode = BodyMode.NONE
    pool: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One message of Envoy's.

    Attributes:
        at_s: monotonic seconds.
        end_of_stream: nothing of this direction follows.
    """

    phase: ClassVar[Phase]
    at_s: float
    end_of_stream: bool = False

    @property
    def kind(self) -> MessageKind:
        """What the tables of `transitions.py` go by."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestEvent(Event):
    """A part of the request.

    Attributes:
        subset: the endpoints the gateway allows; None where it does not say.
    """

    subset: Subset | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHeaders(RequestEvent):
    """*headers* holds the names that are read here, in lower case."""

    phase: ClassVar[Phase] = Phase.REQUEST_HEADERS
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> MessageKind:
        return (
            MessageKind.REQUEST_WITHOUT_BODY if self.end_of_stream else MessageKind.REQUEST_HEADERS
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestBody(RequestEvent):
    phase: ClassVar[Phase] = Phase.REQUEST_BODY
    body: Content = b""

    @property
    def kind(self) -> MessageKind:
        return MessageKind.REQUEST_END if self.end_of_stream else MessageKind.REQUEST_PART


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTrailers(RequestEvent):
    phase: ClassVar[Phase] = Phase.REQUEST_TRAILERS

    @property
    def kind(self) -> MessageKind:
        return MessageKind.REQUEST_END


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseEvent(Event):
    """A part of the answer.

    Attributes:
        decision_id: our own, back from the request's dynamic metadata; empty where there is none.
        served: address of the endpoint that answers; None where the message does not tell.
        response_code: None where the message does not tell.
    """

    decision_id: str = ""
    served: str | None = None
    response_code: int | None = None

    @property
    def kind(self) -> MessageKind:
        return MessageKind.RESPONSE_END if self.end_of_stream else MessageKind.RESPONSE_PART


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseHeaders(ResponseEvent):
    """The answer's headers.

    Attributes:
        headers: those that are read here, by names in lower case.
        metadata: the texts of our namespace; None where the gateway forwards none of it.
    """

    phase: ClassVar[Phase] = Phase.RESPONSE_HEADERS
    metadata: Mapping[str, str] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> MessageKind:
        return MessageKind.RESPONSE_END if self.end_of_stream else MessageKind.RESPONSE_HEADERS


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseBody(ResponseEvent):
    phase: ClassVar[Phase] = Phase.RESPONSE_BODY
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseTrailers(ResponseEvent):
    phase: ClassVar[Phase] = Phase.RESPONSE_TRAILERS

    @property
    def kind(self) -> MessageKind:
        return MessageKind.RESPONSE_END


@dataclass(frozen=True, slots=True)
class Continue:
    """Go on and set *headers*; nothing else changes.

    Attributes:
        stream_id: what Envoy is to write into its access log from now on; empty for nothing.
    """

    phase: Phase
    headers: Headers = ()
    stream_id: str = ""


@dataclass(frozen=True, slots=True)
class BodyPart:
    """The next bytes of a body that Envoy gets back from here."""

    phase: Phase
    body: Content
    end_of_stream: bool


@dataclass(frozen=True, slots=True)
class RouteTo:
    """Go on to the first of *addresses*; retries take the next.

    Attributes:
        addresses: none lets Envoy decide, and only tells it the decision's id.
        body: what to send instead of the request's body; None for that itself.
        predicted_ttft_s: at the first of *addresses*; None where nothing was predicted.
    """

    phase: Phase
    addresses: tuple[str, ...]
    decision_id: str
    headers: Headers = ()
    body: bytes | None = None
    predicted_ttft_s: float | None = None


@dataclass(frozen=True, slots=True)
class Reject:
    """Answer the client from here, with a JSON body."""

    status: int
    body: bytes
    details: str
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait *for_s* for the reply to the last message, longer than for others."""

    for_s: float


Reply = Continue | BodyPart | RouteTo | Reject | Wait
