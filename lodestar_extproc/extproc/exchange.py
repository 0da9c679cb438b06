"""Exchange: one ext_proc stream as a state machine. Events in, replies out; no I/O, no clock.

`transitions.py` says which action a message calls for, `modes.py` how each mode replies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar

from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.decision import Decision
from lodestar_extproc.extproc import conformance, refusals
from lodestar_extproc.extproc.deciding import Deciding
from lodestar_extproc.extproc.events import (
    Content,
    Continue,
    Event,
    Opening,
    Reject,
    RequestEvent,
    ResponseEvent,
    ResponseHeaders,
    RouteTo,
    Wait,
)
from lodestar_extproc.extproc.held_body import MAX_BODY_BYTES
from lodestar_extproc.extproc.held_turn import HeldTurn
from lodestar_extproc.extproc.incoming import IncomingRequest
from lodestar_extproc.extproc.modes import ANSWER_STRATEGIES, REQUEST_STRATEGIES, Done, Replies
from lodestar_extproc.extproc.observation import Observation
from lodestar_extproc.extproc.pools import NO_OVERRIDES, Overrides, PoolRouters
from lodestar_extproc.extproc.route_reply import route_to
from lodestar_extproc.extproc.stream_outcome import StreamOutcome
from lodestar_extproc.extproc.transitions import (
    ACTIONS,
    NEXT_STATES,
    Action,
    ActionResult,
    ProtocolError,
    StreamMode,
    StreamState,
    modes_of,
)
from lodestar_extproc.extproc.unread_body import UnreadBody
from lodestar_extproc.routing.routers import UnknownPool
from lodestar_extproc.routing.unserved import NoEndpoint


class Exchange:
    """Follows one stream.

    Args:
        opening: of the stream's first message, which `receive` gets too.
        stream_id: our own id of the stream; by it Envoy's access log tells of a request whose
            decision came too late.
        access_log: Envoy's access log reports how answers end.

    Attributes:
        request: what has come of it.
        n_repeats: messages of a request that had ended; they are ignored.
    """

    def __init__(
        self,
        routers: PoolRouters,
        opening: Opening,
        overrides: Overrides = NO_OVERRIDES,
        *,
        stream_id: str = "",
        access_log: bool = True,
    ) -> None:
        stream_mode, answer_mode = modes_of(opening)
        self.state, self.outcome = StreamState.IDLE, StreamOutcome.CUT
        self.n_repeats, self.stream_id = 0, stream_id
        self._actions = ACTIONS[stream_mode]
        self._next_states = NEXT_STATES[answer_mode]
        self._requests = REQUEST_STRATEGIES[stream_mode]
        self._answers = ANSWER_STRATEGIES[answer_mode]
        self._pool_of = partial(overrides.find, routers, opening.pool)
        self._own_paths = partial(overrides.paths, routers, opening.pool)
        self._observe = partial(Observation, routers, access_log=access_log)
        self.request = IncomingRequest(self._pool_of)
        self._deciding = Deciding(self.request, self._requests, stream_id)
        self._tests_conformance = self._seen_enough = False
        self._observation = self._observe() if stream_mode is StreamMode.OBSERVED else None

    @property
    def done(self) -> bool:
        """Nothing more is wanted: the stream is to be ended, once the replies are out."""
        return self.state is StreamState.DONE

    def receive(self, event: Event) -> Replies:
        """Take Envoy's next message; what to answer, if anything.

        Raises:
            ProtocolError: the message may not come now.
        """
        action = self._actions[self.state].get(event.kind)
        if action is None:
            came_while = self.state
            self._enter(ActionResult.CLOSED)
            raise ProtocolError(f"{event.kind} came while {came_while}")
        result, replies = self._ACTIONS[action](self, event)
        self._enter(result)
        return replies

    def turn_came(self, at_s: float) -> Replies:
        """Route what is held; what to answer."""
        result, replies = self._route(*self._deciding.request_at(at_s))
        self._enter(result)
        return replies

    def go_on_without_us(self, event: Event) -> Replies:
        """A bug of ours met *event*: what to answer, so that nothing that is held here is lost."""
        if self.done:
            return ()
        done: Done = ActionResult.CLOSED, ()
        if isinstance(event, ResponseEvent):
            self._seen_enough = True
            done = self._answers.give_up(event)
        elif self.outcome is StreamOutcome.CUT:
            done = self._requests.give_up(event, self.request.content())
            if done[0] is ActionResult.PASSED:
                self.outcome = StreamOutcome.PASSED
        self._enter(done[0])
        return done[1]

    def close(self, at_s: float) -> None:
        """The stream is over, in whatever state. Idempotent."""
        self._enter(ActionResult.CLOSED)
        if self._observation is not None:
            self._observation.close(at_s)

    def _enter(self, result: ActionResult) -> None:
        """The only change of state. A body is held while the request is read, and no longer."""
        before, self.state = self.state, self._next_states.get(result, self.state)
        if self.state is not before and self.state is not StreamState.READING:
            self.request.held.clear()

    @property
    def decision(self) -> Decision | None:
        """Made on this stream; None until then, and on observing streams."""
        return self._deciding.decision

    @property
    def turn(self) -> HeldTurn | None:
        """What is held until its turn comes; None where nothing is."""
        return None if self.decision or self.done else self._deciding.turn

    @property
    def observed_id(self) -> str:
        """Of the decision whose answer is seen here; empty where none is."""
        return self._observation.decision_id if self._observation else ""

    def unread(self, event: Event) -> UnreadBody | None:
        """What is to be read before *event* is received; None where nothing is."""
        routes = self._actions[self.state].get(event.kind) is Action.ROUTE
        return self.request.unread(event, self._own_paths) if routes else None

    # -- the request --------------------------------------------------------------------------

    def _admit(self, event: RequestEvent) -> Done:
        self.request.take(event)
        if self.request.may_be_load(self._own_paths) and not self.request.is_about_kept:
            return ActionResult.READ_ON, self._requests.acknowledge(event, self.stream_id)
        return self._look_up(event) or self._leave_to_envoy(event, StreamOutcome.PASSED)

    def _pass(self, event: RequestEvent) -> Done:
        self.request.take(event)
        return self._look_up(event) or self._leave_to_envoy(event, StreamOutcome.PASSED)

    def _gather(self, event: RequestEvent) -> Done:
        self.request.take(event)
        return ActionResult.READ_ON, self._requests.acknowledge(event)

    def _hold(self, event: RequestEvent) -> Done:
        self.request.take(event)
        if self.request.held.is_full:
            return self._reject(refusals.body_too_large(MAX_BODY_BYTES), StreamOutcome.REJECTED)
        return ActionResult.READ_ON, self._requests.acknowledge(event)

    def _skip(self, event: RequestEvent) -> Done:
        self.n_repeats += self.request.note(event)
        return ActionResult.SKIPPED, self._requests.acknowledge(event)

    def _route_by_body(self, event: RequestEvent) -> Done:
        self.request.take(event)
        content = self.request.content()
        light = self.request.is_light(len(content), self._own_paths)
        if light and not self._requests.refuses_without_endpoint:
            return self._leave_to_envoy(event, StreamOutcome.PASSED, content)
        return self._route(event, content, len(content))

    def _route_by_length(self, event: RequestEvent) -> Done:
        self.request.take(event)
        n_bytes = self.request.announced_bytes
        if not self.request.is_light(n_bytes, self._own_paths):
            return self._route(event, None, n_bytes)
        return self._leave_to_envoy(event, StreamOutcome.PASSED)

    def _route_without_body(self, event: RequestEvent) -> Done:
        self.request.take(event)
        return self._route(event, None, n_bytes=0)

    def _route(self, event: RequestEvent, content: Content | None, n_bytes: int) -> Done:
        try:
            router, policy = self._pool_of()
        except (UnknownPool, ValueError):
            return self._leave_to_envoy(event, StreamOutcome.BAD_ROUTE, content)
        if looked_up := self._look_up(event, content):
            return looked_up
        settings = router.settings
        self._tests_conformance = settings.conformance_headers
        try:
            decided = self._deciding.decide(router, policy, event, content, n_bytes)
        except refusals.REFUSED as error:
            return self._reject(*refusals.of(error))
        except NoEndpoint as error:
            return self._without_endpoint(str(error), event, content, settings)
        if isinstance(decided, Wait):
            return ActionResult.HELD, (decided,)
        return self._routed(event, decided.reply, decided.body, StreamOutcome.ROUTED)

    def _without_endpoint(
        self, problem: str, event: RequestEvent, content: Content | None, settings: PoolSettings
    ) -> Done:
        hinted = self.request.subset(settings) is not None
        if self._requests.refuses_without_endpoint or hinted or settings.answer_503:
            return self._reject(refusals.no_endpoint(problem), StreamOutcome.NO_ENDPOINT)
        return self._leave_to_envoy(event, StreamOutcome.NO_ENDPOINT, content)

    def _look_up(self, event: RequestEvent, content: Content | None = None) -> Done | None:
        """Go where something is kept; None for a request that is for nothing such."""
        found = self.request.look_up(event.at_s)
        # A picker has to name an endpoint: by a decision, where nothing is named to ask for.
        if found is None or (self._requests.refuses_without_endpoint and not found.addresses):
            return None
        phase, settings = self._requests.reply_phase(event), self._pool_of()[0].settings
        reply = route_to(phase, found.addresses, found.lookup_id, settings)
        return self._routed(event, reply, content, StreamOutcome.LOOKED_UP)

    def _routed(
        self, event: RequestEvent, reply: RouteTo, body: Content | None, outcome: StreamOutcome
    ) -> Done:
        if self._answers.shows_answers:
            self._observation = self._observe(decision_id=reply.decision_id)
        self.outcome = outcome
        return ActionResult.ROUTED, (reply, *self._requests.given_back(event, body))

    def _leave_to_envoy(
        self, event: RequestEvent, outcome: StreamOutcome, content: Content | None = None
    ) -> Done:
        """Envoy goes on by its own policy."""
        self.outcome, reply = outcome, Continue(self._requests.reply_phase(event))
        return ActionResult.PASSED, (reply, *self._requests.given_back(event, content))

    def _reject(self, refusal: Reject, outcome: StreamOutcome) -> Done:
        self.outcome = outcome
        return ActionResult.REJECTED, (refusal,)

    # -- the answer ---------------------------------------------------------------------------

    def _pass_answer(self, event: ResponseEvent) -> Done:
        return ActionResult.ANSWERED_EARLY, self._read_answer(event)

    def _watch(self, event: ResponseEvent) -> Done:
        replies = self._read_answer(event)
        return ActionResult.SEEN_ENOUGH if self._seen_enough else ActionResult.WATCHED, replies

    def _finish(self, event: ResponseEvent) -> Done:
        return ActionResult.ENDED, self._read_answer(event)

    def _read_answer(self, event: ResponseEvent) -> Replies:
        if self.outcome is StreamOutcome.CUT:
            # No decision was made here: an observing stream, or an answer of Envoy's own.
            self.outcome = StreamOutcome.OBSERVED if self._observation else StreamOutcome.PASSED
        if self._observation is not None and not self._seen_enough:
            self._seen_enough = self._observation.receive(event)
        if self._tests_conformance and isinstance(event, ResponseHeaders):
            return (Continue(event.phase, conformance.response_headers(event)),)
        return self._answers.acknowledge(event)

    _ACTIONS: ClassVar[Mapping[Action, Callable[[Exchange, Any], Done]]] = MappingProxyType(
        {
            Action.ADMIT: _admit,
            Action.PASS: _pass,
            Action.GATHER: _gather,
            Action.HOLD: _hold,
            Action.SKIP: _skip,
            Action.ROUTE: _route_by_body,
            Action.ROUTE_BY_LENGTH: _route_by_length,
            Action.ROUTE_WITHOUT_BODY: _route_without_body,
            Action.PASS_ANSWER: _pass_answer,
            Action.WATCH: _watch,
            Action.FINISH: _finish,
        }
    )
