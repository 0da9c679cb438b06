"""What differs by mode: how a stream's messages are replied to, and a request is given back.

One strategy for each way in which Envoy sends a request, and one for each in which it sends an
answer. They keep no state; which action comes when stands in `transitions.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Protocol

from lodestar_extproc.extproc.events import (
    Content,
    Continue,
    Event,
    Phase,
    Reply,
    ResponseBody,
    ResponseEvent,
)
from lodestar_extproc.extproc.held_body import body_parts, given_back
from lodestar_extproc.extproc.transitions import ActionResult, AnswerMode, StreamMode

Replies = tuple[Reply, ...]
Done = tuple[ActionResult, Replies]
"""What an action came to, and what Envoy is told."""


class RequestStrategy(Protocol):
    """How a request is replied to and given back."""

    @property
    def may_change_body(self) -> bool:
        """Whether no part of a request's body has gone on before all of it was here."""

    @property
    def refuses_without_endpoint(self) -> bool:
        """Whether a request that can go nowhere is answered 503, instead of left to Envoy."""

    def acknowledge(self, event: Event, stream_id: str = "") -> Replies:
        """Reply to a part of a request that decides nothing; tell *stream_id* with it."""

    def reply_phase(self, event: Event) -> Phase:
        """The part of the request whose reply tells what was decided when *event* came."""

    def replaced_body(self, received: Content | None, wanted: Content | None) -> bytes | None:
        """The body that goes with that reply; None leaves Envoy the one it holds."""

    def given_back(self, event: Event, body: Content | None) -> Replies:
        """What follows that reply: the request that was held until *event* ended it."""

    def give_up(self, event: Event, body: Content) -> Done:
        """A bug of ours met *event*: let the request go on with all that was held."""


@dataclass(frozen=True, slots=True)
class StepByStep:
    """Envoy holds the request and waits for one reply to each message.

    Attributes:
        may_change_body: Envoy holds the whole body until the decision.
    """

    may_change_body: bool
    refuses_without_endpoint: ClassVar[bool] = False

    def acknowledge(self, event: Event, stream_id: str = "") -> Replies:
        return (Continue(event.phase, stream_id=stream_id),)

    def reply_phase(self, event: Event) -> Phase:
        return event.phase

    def replaced_body(self, received: Content | None, wanted: Content | None) -> bytes | None:
        return None if wanted is None or wanted is received else bytes(wanted)

    def given_back(self, _event: Event, _body: Content | None) -> Replies:
        return ()

    def give_up(self, _event: Event, _body: Content) -> Done:
        # Envoy goes on by itself when the stream ends.
        return ActionResult.CLOSED, ()


@dataclass(frozen=True, slots=True)
class HeldRequests:
    """Full duplex: Envoy waits for nothing, and goes on only with what it gets back."""

    may_change_body: ClassVar[bool] = True
    # An endpoint picker says so; in a gateway of its own, Envoy decides.
    refuses_without_endpoint: ClassVar[bool] = True

    def acknowledge(self, _event: Event, stream_id: str = "") -> Replies:  # noqa: ARG002
        return ()

    def reply_phase(self, _event: Event) -> Phase:
        return Phase.REQUEST_HEADERS

    def replaced_body(self, _received: Content | None, _wanted: Content | None) -> bytes | None:
        return None

    def given_back(self, event: Event, body: Content | None) -> Replies:
        return given_back(event, body or b"")

    def give_up(self, event: Event, body: Content) -> Done:
        return ActionResult.PASSED, (Continue(Phase.REQUEST_HEADERS), *given_back(event, body))


@dataclass(frozen=True, slots=True)
class ObservedRequests(StepByStep):
    """Envoy copies the request to us, and drops replies."""

    def acknowledge(self, _event: Event, stream_id: str = "") -> Replies:  # noqa: ARG002
        return ()


class AnswerStrategy(Protocol):
    """How an answer is replied to."""

    @property
    def shows_answers(self) -> bool:
        """Whether the answer to a request that is decided on a stream comes on that stream."""

    def acknowledge(self, event: ResponseEvent) -> Replies:
        """Reply to a part of an answer."""

    def give_up(self, event: ResponseEvent) -> Done:
        """A bug of ours met *event*: let the answer go on."""


@dataclass(frozen=True, slots=True)
class SentAnswers:
    """Envoy waits for one reply to each message, and keeps the answer.

    Attributes:
        shows_answers: its body is sent.
    """

    shows_answers: bool

    def acknowledge(self, event: ResponseEvent) -> Replies:
        return (Continue(event.phase),)

    def give_up(self, _event: ResponseEvent) -> Done:
        return ActionResult.CLOSED, ()


@dataclass(frozen=True, slots=True)
class EchoedAnswers:
    """Full duplex: the client gets of an answer's body only what is given back, to its end."""

    shows_answers: ClassVar[bool] = True

    def acknowledge(self, event: ResponseEvent) -> Replies:
        if isinstance(event, ResponseBody):
            return body_parts(event.phase, event.body, end_of_stream=event.end_of_stream)
        return (Continue(event.phase),)

    def give_up(self, event: ResponseEvent) -> Done:
        result = ActionResult.ENDED if event.end_of_stream else ActionResult.WATCHED
        return result, self.acknowledge(event)


@dataclass(frozen=True, slots=True)
class ObservedAnswers(SentAnswers):
    """Envoy copies the answer to us, and drops replies."""

    def acknowledge(self, _event: ResponseEvent) -> Replies:
        return ()


REQUEST_STRATEGIES: Mapping[StreamMode, RequestStrategy] = MappingProxyType(
    {
        StreamMode.BUFFERED: StepByStep(may_change_body=True),
        StreamMode.STREAMED: StepByStep(may_change_body=False),
        StreamMode.HEADERS_ONLY: StepByStep(may_change_body=False),
        StreamMode.FULL_DUPLEX: HeldRequests(),
        StreamMode.OBSERVED: ObservedRequests(may_change_body=False),
    }
)
ANSWER_STRATEGIES: Mapping[AnswerMode, AnswerStrategy] = MappingProxyType(
    {
        AnswerMode.NOT_SENT: SentAnswers(shows_answers=False),
        AnswerMode.SENT: SentAnswers(shows_answers=True),
        AnswerMode.FULL_DUPLEX: EchoedAnswers(),
        AnswerMode.OBSERVED: ObservedAnswers(shows_answers=True),
    }
)
