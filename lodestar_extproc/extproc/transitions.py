"""The legal orders of an ext_proc stream, as tables.

    ACTIONS      (how Envoy sends the request, state, kind of message) -> what the exchange does
    RESULTS      what an action may come to
    NEXT_STATES  (how Envoy sends the answer, result) -> the next state

What an action does is the exchange's business; the tables know kinds and states only. The page
docs/reference/ext_proc_states.md is drawn from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from lodestar_extproc.extproc.events import BodyMode, MessageKind, Opening


class ProtocolError(Exception):
    """Envoy sent a message of an unknown kind, or one that may not come now."""


class StreamMode(StrEnum):
    """How Envoy sends the request of a stream; settled by the stream's first message."""

    BUFFERED = "buffered"
    STREAMED = "streamed"
    HEADERS_ONLY = "headers only"
    FULL_DUPLEX = "full duplex"
    OBSERVED = "observed"


class AnswerMode(StrEnum):
    """How Envoy sends the answer's body; settled by the stream's first message."""

    NOT_SENT = "not sent"
    SENT = "sent"
    FULL_DUPLEX = "full duplex"
    OBSERVED = "observed"


class StreamState(StrEnum):
    IDLE = "idle"
    READING = "reading the request"
    AWAITING_ANSWER = "awaiting the answer"
    ANSWERING = "answering"
    DONE = "done"


class Action(StrEnum):
    """What a message makes the exchange do."""

    ADMIT = "admit"
    """Read the headers of a request whose body follows; pass what is no inference, or send it to
    who keeps what it is for."""
    PASS = "pass"  # noqa: S105
    """Leave the request to Envoy, or send it to who keeps what it is for."""
    GATHER = "gather"
    """Copy a part of the body, which goes on at once."""
    HOLD = "hold"
    """Keep a part that goes on only when it is given back."""
    ROUTE = "route"
    """Route by the body, which is whole now."""
    ROUTE_BY_LENGTH = "route by length"
    """Route by the headers: Envoy does not send the body."""
    ROUTE_WITHOUT_BODY = "route without a body"
    """Route a request that has no body, be it an inference or not."""
    SKIP = "skip"
    """Ignore a part of a request that nobody needs; count it if the request had ended before."""
    PASS_ANSWER = "pass answer"  # noqa: S105
    """Leave an answer to Envoy that came before a decision: it is Envoy's own."""
    WATCH = "watch"
    """Read a part of the answer."""
    FINISH = "finish"
    """Read the end of the answer."""


class ActionResult(StrEnum):
    """What an action came to."""

    READ_ON = "more of the request is to come"
    ROUTED = "a decision was made"
    PASSED = "Envoy decides"
    REJECTED = "the client was answered from here"
    ANSWERED_EARLY = "Envoy answered before a decision"
    WATCHED = "more of the answer is wanted"
    SEEN_ENOUGH = "no more of the answer is wanted"
    ENDED = "the answer has ended"
    CLOSED = "the stream is over"
    """Not of an action: Envoy or we ended the stream, in whatever state."""
    SKIPPED = "nothing changed"
    HELD = "the decision is put off"


Row = Mapping[MessageKind, Action]

_STREAM_MODES: Mapping[BodyMode, StreamMode] = MappingProxyType(
    {
        BodyMode.NONE: StreamMode.HEADERS_ONLY,
        BodyMode.BUFFERED: StreamMode.BUFFERED,
        # What fits Envoy's buffer comes in one message; the rest goes on without being sent here.
        BodyMode.BUFFERED_PARTIAL: StreamMode.BUFFERED,
        BodyMode.STREAMED: StreamMode.STREAMED,
        BodyMode.FULL_DUPLEX_STREAMED: StreamMode.FULL_DUPLEX,
    }
)
_ANSWER_MODES: Mapping[BodyMode, AnswerMode] = MappingProxyType(
    {
        BodyMode.NONE: AnswerMode.NOT_SENT,
        BodyMode.BUFFERED: AnswerMode.SENT,
        BodyMode.BUFFERED_PARTIAL: AnswerMode.SENT,
        BodyMode.STREAMED: AnswerMode.SENT,
        BodyMode.FULL_DUPLEX_STREAMED: AnswerMode.FULL_DUPLEX,
    }
)


def modes_of(opening: Opening) -> tuple[StreamMode, AnswerMode]:
    """How Envoy sends request and answer on the stream that began with *opening*."""
    if opening.observing:
        return StreamMode.OBSERVED, AnswerMode.OBSERVED
    return _STREAM_MODES[opening.request_body_mode], _ANSWER_MODES[opening.response_body_mode]


_ANSWER: Row = MappingProxyType(
    {
        MessageKind.RESPONSE_HEADERS: Action.WATCH,
        MessageKind.RESPONSE_PART: Action.WATCH,
        MessageKind.RESPONSE_END: Action.FINISH,
    }
)
# There is nothing left to decide.
_EARLY_ANSWER: Row = MappingProxyType(
    {
        MessageKind.RESPONSE_HEADERS: Action.PASS_ANSWER,
        MessageKind.RESPONSE_PART: Action.PASS_ANSWER,
        MessageKind.RESPONSE_END: Action.FINISH,
    }
)
# The tail of a request that needs no decision any more, and what Envoy sends twice: Envoy 1.35 to
# 1.37 repeat the last part of a large body (https://github.com/envoyproxy/envoy/issues/46237).
_REST_OF_REQUEST: Row = MappingProxyType(
    {
        MessageKind.REQUEST_PART: Action.SKIP,
        MessageKind.REQUEST_END: Action.SKIP,
    }
)
_AFTER_THE_DECISION: Mapping[StreamState, Row] = MappingProxyType(
    {
        StreamState.AWAITING_ANSWER: {**_REST_OF_REQUEST, **_ANSWER},
        StreamState.ANSWERING: {**_REST_OF_REQUEST, **_ANSWER},
        StreamState.DONE: {},
    }
)
_WHOLE_BODY: Row = MappingProxyType(
    {
        MessageKind.REQUEST_PART: Action.ROUTE,
        MessageKind.REQUEST_END: Action.ROUTE,
    }
)
_BODY_IN_PARTS: Row = MappingProxyType(
    {
        MessageKind.REQUEST_PART: Action.GATHER,
        MessageKind.REQUEST_END: Action.ROUTE,
    }
)
_ADMISSION: Row = MappingProxyType(
    {
        MessageKind.REQUEST_HEADERS: Action.ADMIT,
        MessageKind.REQUEST_WITHOUT_BODY: Action.PASS,
    }
)

ACTIONS: Mapping[StreamMode, Mapping[StreamState, Row]] = MappingProxyType(
    {
        StreamMode.BUFFERED: {
            StreamState.IDLE: {**_ADMISSION, **_WHOLE_BODY, **_EARLY_ANSWER},
            StreamState.READING: {**_WHOLE_BODY, **_EARLY_ANSWER},
            **_AFTER_THE_DECISION,
        },
        StreamMode.STREAMED: {
            StreamState.IDLE: {**_ADMISSION, **_BODY_IN_PARTS, **_EARLY_ANSWER},
            StreamState.READING: {**_BODY_IN_PARTS, **_EARLY_ANSWER},
            **_AFTER_THE_DECISION,
        },
        StreamMode.HEADERS_ONLY: {
            StreamState.IDLE: {
                MessageKind.REQUEST_HEADERS: Action.ROUTE_BY_LENGTH,
                MessageKind.REQUEST_WITHOUT_BODY: Action.PASS,
                **_EARLY_ANSWER,
            },
            **_AFTER_THE_DECISION,
        },
        # Nothing is answered until the whole request is here; then all of it, in its order.
        StreamMode.FULL_DUPLEX: {
            StreamState.IDLE: {
                MessageKind.REQUEST_HEADERS: Action.HOLD,
                MessageKind.REQUEST_WITHOUT_BODY: Action.ROUTE_WITHOUT_BODY,
                **_ANSWER,
            },
            StreamState.READING: {
                MessageKind.REQUEST_PART: Action.HOLD,
                MessageKind.REQUEST_END: Action.ROUTE,
                **_ANSWER,
            },
            **_AFTER_THE_DECISION,
        },
        StreamMode.OBSERVED: {
            StreamState.IDLE: {
                MessageKind.REQUEST_HEADERS: Action.SKIP,
                MessageKind.REQUEST_WITHOUT_BODY: Action.SKIP,
                **_REST_OF_REQUEST,
                **_ANSWER,
            },
            StreamState.ANSWERING: {**_REST_OF_REQUEST, **_ANSWER},
            StreamState.DONE: {},
        },
    }
)

_ROUTING_RESULTS = (
    ActionResult.ROUTED,
    ActionResult.PASSED,
    ActionResult.REJECTED,
    ActionResult.HELD,
)
RESULTS: Mapping[Action, tuple[ActionResult, ...]] = MappingProxyType(
    {
        Action.ADMIT: (ActionResult.READ_ON, ActionResult.PASSED, ActionResult.ROUTED),
        Action.PASS: (ActionResult.PASSED, ActionResult.ROUTED),
        Action.GATHER: (ActionResult.READ_ON,),
        Action.HOLD: (ActionResult.READ_ON, ActionResult.REJECTED),
        Action.ROUTE: _ROUTING_RESULTS,
        Action.ROUTE_BY_LENGTH: _ROUTING_RESULTS,
        Action.ROUTE_WITHOUT_BODY: _ROUTING_RESULTS,
        Action.SKIP: (ActionResult.SKIPPED,),
        Action.PASS_ANSWER: (ActionResult.ANSWERED_EARLY,),
        Action.WATCH: (ActionResult.WATCHED, ActionResult.SEEN_ENOUGH),
        Action.FINISH: (ActionResult.ENDED,),
    }
)

_ALWAYS: Mapping[ActionResult, StreamState] = MappingProxyType(
    {
        ActionResult.READ_ON: StreamState.READING,
        ActionResult.REJECTED: StreamState.DONE,
        ActionResult.WATCHED: StreamState.ANSWERING,
        ActionResult.ENDED: StreamState.DONE,
        ActionResult.CLOSED: StreamState.DONE,
    }
)
_SENT: Mapping[ActionResult, StreamState] = MappingProxyType(
    {
        **_ALWAYS,
        ActionResult.ROUTED: StreamState.AWAITING_ANSWER,
        ActionResult.PASSED: StreamState.DONE,
        ActionResult.ANSWERED_EARLY: StreamState.DONE,
        ActionResult.SEEN_ENOUGH: StreamState.DONE,
    }
)
NEXT_STATES: Mapping[AnswerMode, Mapping[ActionResult, StreamState]] = MappingProxyType(
    {
        AnswerMode.NOT_SENT: {**_SENT, ActionResult.ROUTED: StreamState.DONE},
        AnswerMode.SENT: _SENT,
        # Parts may be on their way, and the client gets only what is given back: to the end.
        AnswerMode.FULL_DUPLEX: {
            **_ALWAYS,
            ActionResult.ROUTED: StreamState.AWAITING_ANSWER,
            ActionResult.PASSED: StreamState.AWAITING_ANSWER,
            ActionResult.ANSWERED_EARLY: StreamState.ANSWERING,
            ActionResult.SEEN_ENOUGH: StreamState.ANSWERING,
        },
        AnswerMode.OBSERVED: _SENT,
    }
)
"""A result that is missing here, `SKIPPED`, leaves the state as it is."""
