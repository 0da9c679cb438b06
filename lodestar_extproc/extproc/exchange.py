"""Exchange: one ext_proc stream as a state machine. Events in, replies out; no I/O, no clock.

The orders it follows stand in `transitions.py`; here is what each action does. An action may end
the stream before its table does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar

from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.decision import Decision
from lodestar_extproc.extproc import body, conformance, refusals
from lodestar_extproc.extproc.events import (
    BodyMode,
    Choose,
    Continue,
    Event,
    Opening,
    Phase,
    Reject,
    Reply,
    RequestEvent,
    ResponseBody,
    ResponseEvent,
    ResponseHeaders,
)
from lodestar_extproc.extproc.held_body import MAX_BODY_BYTES, body_parts, given_back
from lodestar_extproc.extproc.incoming import IncomingRequest
from lodestar_extproc.extproc.observation import Observation
from lodestar_extproc.extproc.pools import NO_OVERRIDES, Overrides, PoolRouter, PoolRouters
from lodestar_extproc.extproc.transitions import (
    TRANSITIONS,
    Action,
    ProtocolError,
    State,
    manner_of,
)
from lodestar_extproc.extproc.verdict import Verdict
from lodestar_extproc.policies.protocol import Policy
from lodestar_extproc.routing.routers import UnknownPool
from lodestar_extproc.routing.unserved import NoEndpoint, Overloaded


class Exchange:
    """Follows one stream.

    Args:
        opening: of the stream's first message, which `receive` gets too.
        access_log: Envoy's access log reports how answers end.

    Attributes:
        decision: made on this stream; None until then, and on observing streams.
    """

    def __init__(
        self,
        routers: PoolRouters,
        opening: Opening,
        overrides: Overrides = NO_OVERRIDES,
        *,
        access_log: bool = True,
    ) -> None:
        self.state = State.IDLE
        self.verdict = Verdict.CUT
        self.decision: Decision | None = None
        self._table = TRANSITIONS[manner_of(opening)]
        self._routers = routers
        self._opening = opening
        self._overrides = overrides
        self._access_log = access_log
        self._request = IncomingRequest()
        self._tests_conformance = False
        self._observation: Observation | None = None
        self._seen_enough = False
        if opening.observing:
            self._observation = Observation(routers, access_log=access_log)

    @property
    def done(self) -> bool:
        """Nothing more is wanted: the stream is to be ended, once the replies are out."""
        return self.state is State.DONE

    def receive(self, event: Event) -> tuple[Reply, ...]:
        """Take Envoy's next message; what to answer, if anything.

        Raises:
            ProtocolError: the message may not come now.
        """
        row = self._table.get(self.state, {})
        if event.cue not in row:
            came_while, self.state = self.state, State.DONE
            raise ProtocolError(f"{event.cue} came while {came_while}")
        action, self.state = row[event.cue]
        return self._ACTIONS[action](self, event)

    def go_on_without_us(self, event: Event) -> tuple[Reply, ...]:
        """A bug of ours met *event*: what to answer, so that nothing that is held here is lost."""
        if isinstance(event, ResponseEvent) and self._opening.echoes_answers:
            self._seen_enough = True
            return self._continue(event)
        if self._opening.holds_requests and self.verdict is Verdict.CUT and not self.done:
            return (*self._pass(event), *given_back(event, self._request.content()))
        self.state = State.DONE
        return ()

    def close(self, at_s: float) -> None:
        """The stream is over, in whatever state. Idempotent."""
        self.state = State.DONE
        self._request.held.clear()
        if self._observation is not None:
            self._observation.close(at_s)

    def summary(self) -> str:
        """What happened, for a log line; without a word of the prompt."""
        if self.decision is None:
            answered = self._observation.decision_id if self._observation else ""
            return f"verdict={self.verdict} decision={answered or '-'}"
        made = self.decision
        return (
            f"verdict={self.verdict} decision={made.decision_id} request={made.request_id or '-'} "
            f"endpoint={made.addresses[0]} policy={made.policy} reason={made.ranking.reason} "
            f"priority={made.candidates.request.priority}"
        )

    # -- the request --------------------------------------------------------------------------

    def _admit(self, event: Event) -> tuple[Reply, ...]:
        self._request.take(event)
        return self._continue(event) if self._request.is_inference else self._pass(event)

    def _gather(self, event: Event) -> tuple[Reply, ...]:
        self._request.take(event)
        return self._continue(event)

    def _hold(self, event: Event) -> tuple[Reply, ...]:
        """Say nothing yet: the reply to the headers will carry the choice."""
        self._request.take(event)
        if self._request.held.is_full:
            return self._reject(refusals.body_too_large(MAX_BODY_BYTES))
        return ()

    def _choose(self, event: Event) -> tuple[Reply, ...]:
        self._request.take(event)
        content = self._request.content()
        return self._route(event, content, len(content))

    def _pick(self, event: Event) -> tuple[Reply, ...]:
        """Choose for a request without a body, be it an inference or not."""
        self._request.take(event)
        return self._route(event, None, 0)

    def _guess(self, event: Event) -> tuple[Reply, ...]:
        """Choose by the headers: Envoy is not to send the body."""
        replies = self._admit(event)
        if self._request.is_inference:
            return self._route(event, None, self._request.announced_bytes)
        return replies

    def _route(self, event: Event, content: bytes | None, n_bytes: int) -> tuple[Reply, ...]:
        try:
            router, policy = self._overrides.find(self._routers, self._opening.pool)
        except (UnknownPool, ValueError):
            return (*self._pass(event, Verdict.BAD_ROUTE), *self._held(event, content))
        settings = router.settings
        self._tests_conformance = settings.conformance_headers
        try:
            return self._decide(router, policy, event, content, n_bytes)
        except body.InvalidRequest as error:
            return self._reject(refusals.invalid_request(str(error)))
        except Overloaded as error:
            return self._reject(refusals.overloaded(str(error), error.retry_after_s), Verdict.SHED)
        except NoEndpoint as error:
            # An endpoint picker says so; in a gateway of its own, Envoy decides.
            hinted = self._request.subset(settings) is not None
            if self._opening.holds_requests or hinted or settings.answer_503:
                return self._reject(refusals.no_endpoint(str(error)), Verdict.NO_ENDPOINT)
            return self._pass(event, Verdict.NO_ENDPOINT)

    def _decide(
        self,
        router: PoolRouter,
        policy: Policy | None,
        event: Event,
        content: bytes | None,
        n_bytes: int,
    ) -> tuple[Reply, ...]:
        """The choice, and the body with it where Envoy is to get one from here."""
        request, to_send = self._request.read(
            content, n_bytes, router, may_rename=self._opening.may_change_requests
        )
        self.decision = router.route(
            request,
            request_id=self._request.request_id,
            at_s=event.at_s,
            subset=self._request.subset(router.settings),
            policy=policy,
        )
        choice = self._choice(event, self.decision, router.settings)
        if self._opening.holds_requests:
            return (choice, *self._held(event, to_send))
        return (choice if to_send is content else replace(choice, body=to_send),)

    def _choice(self, event: Event, decision: Decision, settings: PoolSettings) -> Choose:
        self.verdict = Verdict.CHOSEN
        self._request.held.clear()
        if self._opening.response_body_mode is BodyMode.NONE:
            self.state = State.DONE
        else:
            self._observation = Observation(
                self._routers, access_log=self._access_log, decision_id=decision.decision_id
            )
        n_named = 0 if settings.shadow else settings.retry_candidates
        addresses = decision.addresses[:n_named]
        headers = conformance.request_headers(addresses) if self._tests_conformance else ()
        phase = Phase.REQUEST_HEADERS if self._opening.holds_requests else event.phase
        return Choose(phase, addresses, decision.decision_id, headers)

    def _held(self, event: Event, content: bytes | None) -> tuple[Reply, ...]:
        """What Envoy has to get back of a request, after the reply to its headers."""
        if content is None or not self._opening.holds_requests:
            return ()
        return given_back(event, content)

    def _reject(self, refusal: Reject, verdict: Verdict = Verdict.REJECTED) -> tuple[Reply, ...]:
        self.state, self.verdict = State.DONE, verdict
        return (refusal,)

    # -- the answer ---------------------------------------------------------------------------

    def _watch(self, event: Event) -> tuple[Reply, ...]:
        assert isinstance(event, ResponseEvent)
        if self._observation is None:
            # No choice was made: the answer is Envoy's own, or of an engine that Envoy chose.
            self.verdict = Verdict.PASSED if self.verdict is Verdict.CUT else self.verdict
        elif not self._seen_enough:
            self._seen_enough = self._observation.receive(event)
        if self._opening.observing:
            self.verdict = Verdict.OBSERVED
        if self._seen_enough and not self._opening.echoes_answers:
            self.state = State.DONE
        if self._tests_conformance and isinstance(event, ResponseHeaders):
            return (Continue(event.phase, conformance.response_headers(event)),)
        return self._continue(event)

    # -- either -------------------------------------------------------------------------------

    def _pass(self, event: Event, verdict: Verdict = Verdict.PASSED) -> tuple[Reply, ...]:
        """Envoy goes on by its own policy."""
        self.state, self.verdict = self._after_the_request, verdict
        if self._opening.holds_requests and isinstance(event, RequestEvent):
            return (Continue(Phase.REQUEST_HEADERS),)
        return self._continue(event)

    @property
    def _after_the_request(self) -> State:
        """In full duplex an answer is to be given back to its end: parts may be on their way."""
        return State.CHOSEN if self._opening.echoes_answers else State.DONE

    def _continue(self, event: Event) -> tuple[Reply, ...]:
        if self._opening.observing:
            return ()
        if isinstance(event, ResponseBody) and self._opening.echoes_answers:
            return body_parts(event.phase, event.body, end_of_stream=event.end_of_stream)
        return (Continue(event.phase),)

    _ACTIONS: ClassVar[Mapping[Action, Callable[[Exchange, Event], tuple[Reply, ...]]]] = (
        MappingProxyType(
            {
                Action.ADMIT: _admit,
                Action.PASS: _pass,
                Action.GATHER: _gather,
                Action.HOLD: _hold,
                Action.CHOOSE: _choose,
                Action.GUESS: _guess,
                Action.PICK: _pick,
                Action.SKIP: _continue,
                Action.WATCH: _watch,
            }
        )
    )
