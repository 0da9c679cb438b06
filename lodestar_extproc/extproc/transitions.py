"""The legal orders of an ext_proc stream: a table for each manner in which Envoy may talk to us.

What an action does is the exchange's business; the tables know cues and states only.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from lodestar_extproc.extproc.events import BodyMode, Cue, Opening


class ProtocolError(Exception):
    """Envoy's messages came in an order, or of a kind, that is not foreseen."""


class Manner(StrEnum):
    """How Envoy talks on a stream; settled by its first message."""

    BUFFERED = "buffered"
    STREAMED = "streamed"
    HEADERS_ONLY = "headers only"
    FULL_DUPLEX = "full duplex"
    OBSERVING = "observing"


class State(StrEnum):
    IDLE = "idle"
    READING = "reading the request"
    CHOSEN = "chosen"
    ANSWERING = "answering"
    DONE = "done"


class Action(StrEnum):
    """What a cue makes the exchange do."""

    ADMIT = "admit"
    PASS = "pass"  # noqa: S105
    GATHER = "gather"
    HOLD = "hold"
    CHOOSE = "choose"
    GUESS = "guess"
    PICK = "pick"
    SKIP = "skip"
    WATCH = "watch"


Step = tuple[Action, State]
Row = Mapping[Cue, Step]

_MANNERS: Mapping[BodyMode, Manner] = MappingProxyType(
    {
        BodyMode.NONE: Manner.HEADERS_ONLY,
        BodyMode.BUFFERED: Manner.BUFFERED,
        # All that fits the buffer comes in one message; the rest passes by us.
        BodyMode.BUFFERED_PARTIAL: Manner.BUFFERED,
        BodyMode.STREAMED: Manner.STREAMED,
        BodyMode.FULL_DUPLEX_STREAMED: Manner.FULL_DUPLEX,
    }
)


def manner_of(opening: Opening) -> Manner:
    """How Envoy will talk on the stream that began with *opening*."""
    return Manner.OBSERVING if opening.observing else _MANNERS[opening.request_body_mode]


_ANSWER: Row = MappingProxyType(
    {
        Cue.RESPONSE_HEADERS: (Action.WATCH, State.ANSWERING),
        Cue.RESPONSE_PART: (Action.WATCH, State.ANSWERING),
        Cue.RESPONSE_END: (Action.WATCH, State.DONE),
    }
)
# An answer may begin while the request's tail is still on its way.
_LATE_REQUEST: Row = MappingProxyType(
    {
        Cue.REQUEST_PART: (Action.SKIP, State.ANSWERING),
        Cue.REQUEST_END: (Action.SKIP, State.ANSWERING),
    }
)
_UNREAD_REQUEST: Row = MappingProxyType(
    {
        Cue.REQUEST_PART: (Action.SKIP, State.CHOSEN),
        Cue.REQUEST_END: (Action.SKIP, State.CHOSEN),
    }
)
# An answer before the choice is Envoy's own: there is nothing left to choose.
_TOO_LATE: Row = MappingProxyType(
    {
        Cue.RESPONSE_HEADERS: (Action.PASS, State.DONE),
        Cue.RESPONSE_PART: (Action.PASS, State.DONE),
        Cue.RESPONSE_END: (Action.PASS, State.DONE),
    }
)
_AFTER_THE_CHOICE: Mapping[State, Row] = MappingProxyType(
    {
        State.CHOSEN: {**_UNREAD_REQUEST, **_ANSWER},
        State.ANSWERING: {**_LATE_REQUEST, **_ANSWER},
        State.DONE: {},
    }
)
_WHOLE_BODY: Row = MappingProxyType(
    {
        Cue.REQUEST_PART: (Action.CHOOSE, State.CHOSEN),
        Cue.REQUEST_END: (Action.CHOOSE, State.CHOSEN),
    }
)

TRANSITIONS: Mapping[Manner, Mapping[State, Row]] = MappingProxyType(
    {
        Manner.BUFFERED: {
            State.IDLE: {
                Cue.REQUEST_HEADERS: (Action.ADMIT, State.READING),
                Cue.REQUEST_WITHOUT_BODY: (Action.PASS, State.DONE),
                **_WHOLE_BODY,
                **_TOO_LATE,
            },
            State.READING: {**_WHOLE_BODY, **_TOO_LATE},
            **_AFTER_THE_CHOICE,
        },
        Manner.STREAMED: {
            State.IDLE: {
                Cue.REQUEST_HEADERS: (Action.ADMIT, State.READING),
                Cue.REQUEST_WITHOUT_BODY: (Action.PASS, State.DONE),
                Cue.REQUEST_PART: (Action.GATHER, State.READING),
                Cue.REQUEST_END: (Action.CHOOSE, State.CHOSEN),
                **_TOO_LATE,
            },
            State.READING: {
                Cue.REQUEST_PART: (Action.GATHER, State.READING),
                Cue.REQUEST_END: (Action.CHOOSE, State.CHOSEN),
                **_TOO_LATE,
            },
            **_AFTER_THE_CHOICE,
        },
        Manner.HEADERS_ONLY: {
            State.IDLE: {
                Cue.REQUEST_HEADERS: (Action.GUESS, State.CHOSEN),
                Cue.REQUEST_WITHOUT_BODY: (Action.PASS, State.DONE),
                **_TOO_LATE,
            },
            **_AFTER_THE_CHOICE,
        },
        # Nothing is answered until the whole request is here; then all of it, in its order.
        Manner.FULL_DUPLEX: {
            State.IDLE: {
                Cue.REQUEST_HEADERS: (Action.HOLD, State.READING),
                Cue.REQUEST_WITHOUT_BODY: (Action.PICK, State.CHOSEN),
                **_ANSWER,
            },
            State.READING: {
                Cue.REQUEST_PART: (Action.HOLD, State.READING),
                Cue.REQUEST_END: (Action.CHOOSE, State.CHOSEN),
                **_ANSWER,
            },
            State.CHOSEN: _ANSWER,
            # An answer of Envoy's own: what still comes of the request goes nowhere.
            State.ANSWERING: {
                Cue.REQUEST_PART: (Action.HOLD, State.ANSWERING),
                Cue.REQUEST_END: (Action.HOLD, State.ANSWERING),
                **_ANSWER,
            },
            State.DONE: {},
        },
        Manner.OBSERVING: {
            State.IDLE: {
                Cue.REQUEST_HEADERS: (Action.SKIP, State.IDLE),
                Cue.REQUEST_WITHOUT_BODY: (Action.SKIP, State.IDLE),
                Cue.REQUEST_PART: (Action.SKIP, State.IDLE),
                Cue.REQUEST_END: (Action.SKIP, State.IDLE),
                **_ANSWER,
            },
            State.ANSWERING: {**_LATE_REQUEST, **_ANSWER},
            State.DONE: {},
        },
    }
)
