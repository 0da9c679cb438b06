"""Exchange: one ext_proc stream as a state machine. Events in, replies out; no I/O, no clock.

The orders it follows stand in `transitions.py`; here is what each action does. An action may end
the stream before its table does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import ClassVar, Protocol

from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.decision import Decision
from lodestar_extproc.extproc import body
from lodestar_extproc.extproc.events import (
    BodyMode,
    Choose,
    Continue,
    Event,
    Opening,
    Phase,
    Reject,
    Reply,
    RequestBody,
    RequestHeaders,
    ResponseEvent,
)
from lodestar_extproc.extproc.names import CONTENT_LENGTH, METHOD, PATH, REQUEST_ID
from lodestar_extproc.extproc.observation import AnswerRouters, Observation
from lodestar_extproc.extproc.transitions import (
    TRANSITIONS,
    Action,
    ProtocolError,
    State,
    manner_of,
)
from lodestar_extproc.request import InferenceRequest, RequestKind
from lodestar_extproc.router import NoEndpoint
from lodestar_extproc.routers import UnknownPool

MAX_BODY_BYTES = 64 * 2**20
"""What is kept of a streamed request body; Envoy's buffer limit bounds the other modes."""
INVALID_REQUEST = "lodestar_invalid_request"
"""Stands in Envoy's access log as the cause of our own 400."""


class PoolRouter(Protocol):
    """What an exchange asks of one pool; see `router.Router`."""

    @property
    def settings(self) -> PoolSettings: ...

    def bytes_per_token(self, model: str) -> float: ...

    def route(self, request: InferenceRequest, *, request_id: str, at_s: float) -> Decision: ...


class PoolRouters(AnswerRouters, Protocol):
    """What an exchange asks of all pools; see `routers.Routers`."""

    def get(self, pool: str | None, policy: str | None, objective: str | None) -> PoolRouter: ...


@dataclass(frozen=True, slots=True)
class Overrides:
    """What a route sets for its requests, beside the pool's own settings."""

    pool: str | None = None
    policy: str | None = None
    objective: str | None = None


NO_OVERRIDES = Overrides()


class Verdict(StrEnum):
    """What became of a stream."""

    CUT = "cut"
    """It ended before anything could be done."""
    PASSED = "passed"
    """No inference, or answered by Envoy itself: left alone."""
    CHOSEN = "chosen"
    REJECTED = "rejected"
    NO_ENDPOINT = "no_endpoint"
    BAD_ROUTE = "bad_route"
    """The route names a pool, policy or objective that does not exist."""
    OBSERVED = "observed"


class Exchange:
    """Follows one stream.

    Args:
        opening: of the stream's first message, which `receive` gets too.
        access_log: Envoy's access log reports how answers end.

    Attributes:
        decision: made on this stream; None until then, and on observing streams.

    Raises:
        ProtocolError: Envoy talks in a manner that is not spoken here.
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
        self._kind = RequestKind.UNKNOWN
        self._headers: Mapping[str, str] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._observation: Observation | None = None
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
            raise ProtocolError(f"{event.cue} came while {self.state}")
        action, self.state = row[event.cue]
        return self._ACTIONS[action](self, event)

    def close(self, at_s: float) -> None:
        """The stream is over, in whatever state. Idempotent."""
        self.state = State.DONE
        self._body.clear()
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
            f"endpoint={made.addresses[0]} policy={made.policy} reason={made.ranking.reason}"
        )

    # -- the request --------------------------------------------------------------------------

    def _admit(self, event: Event) -> tuple[Reply, ...]:
        assert isinstance(event, RequestHeaders)
        kind = body.kind_of(event.headers.get(METHOD, ""), event.headers.get(PATH, ""))
        if kind is None:
            return self._pass(event)
        self._kind, self._headers = kind, event.headers
        return self._continue(event)

    def _gather(self, event: Event) -> tuple[Reply, ...]:
        self._keep(event)
        return self._continue(event)

    def _choose(self, event: Event) -> tuple[Reply, ...]:
        self._keep(event)
        return self._route(event, b"".join(self._body), self._body_bytes)

    def _guess(self, event: Event) -> tuple[Reply, ...]:
        """Choose by the headers: Envoy is not to send the body."""
        replies = self._admit(event)
        if self.done:
            return replies
        length = self._headers.get(CONTENT_LENGTH, "")
        n_bytes = int(length) if length.isdecimal() and len(length) < 16 else 0
        return self._route(event, None, n_bytes)

    def _keep(self, event: Event) -> None:
        if isinstance(event, RequestBody) and self._body_bytes < MAX_BODY_BYTES:
            self._body.append(event.body)
            self._body_bytes += len(event.body)

    def _route(self, event: Event, content: bytes | None, n_bytes: int) -> tuple[Reply, ...]:
        try:
            router = self._router()
        except (UnknownPool, ValueError):
            return self._pass(event, Verdict.BAD_ROUTE)
        try:
            request = self._read(content, n_bytes, router)
        except body.InvalidRequest as error:
            return self._reject(error)
        request_id = self._headers.get(REQUEST_ID, "")
        try:
            self.decision = router.route(request, request_id=request_id, at_s=event.at_s)
        except NoEndpoint:
            return self._pass(event, Verdict.NO_ENDPOINT)
        return self._send_choice(event.phase, self.decision, router.settings)

    def _router(self) -> PoolRouter:
        """By the route's own header, else by the cluster it leads to, else the only one."""
        wanted = self._overrides
        if wanted.pool is None and self._opening.pool is not None:
            try:
                return self._routers.get(self._opening.pool, wanted.policy, wanted.objective)
            except UnknownPool:
                pass
        return self._routers.get(wanted.pool, wanted.policy, wanted.objective)

    def _read(self, content: bytes | None, n_bytes: int, router: PoolRouter) -> InferenceRequest:
        if content is not None:
            try:
                return body.parse(content, self._kind, router.bytes_per_token, self._headers)
            except body.InvalidRequest:
                if router.settings.strict:
                    raise
        return body.unparsed(n_bytes, router.bytes_per_token(""), self._headers)

    def _send_choice(
        self, phase: Phase, decision: Decision, settings: PoolSettings
    ) -> tuple[Reply, ...]:
        self.verdict = Verdict.CHOSEN
        self._body.clear()
        if self._opening.response_body_mode is BodyMode.NONE:
            self.state = State.DONE
        else:
            self._observation = Observation(
                self._routers, access_log=self._access_log, decision_id=decision.decision_id
            )
        n_named = 0 if settings.shadow else settings.fallback_candidates
        addresses = decision.addresses[:n_named]
        return (Choose(phase, addresses, decision.decision_id),)

    def _reject(self, error: body.InvalidRequest) -> tuple[Reply, ...]:
        self.state, self.verdict = State.DONE, Verdict.REJECTED
        return (Reject(400, body.error_json(str(error)), INVALID_REQUEST),)

    # -- the answer ---------------------------------------------------------------------------

    def _watch(self, event: Event) -> tuple[Reply, ...]:
        assert isinstance(event, ResponseEvent)
        assert self._observation is not None
        if self._opening.observing:
            self.verdict = Verdict.OBSERVED
        if self._observation.receive(event):
            self.state = State.DONE
        return self._continue(event)

    # -- either -------------------------------------------------------------------------------

    def _pass(self, event: Event, verdict: Verdict = Verdict.PASSED) -> tuple[Reply, ...]:
        """Envoy goes on by its own policy."""
        self.state, self.verdict = State.DONE, verdict
        return self._continue(event)

    def _continue(self, event: Event) -> tuple[Reply, ...]:
        return () if self._opening.observing else (Continue(event.phase),)

    _ACTIONS: ClassVar[Mapping[Action, Callable[[Exchange, Event], tuple[Reply, ...]]]] = (
        MappingProxyType(
            {
                Action.ADMIT: _admit,
                Action.PASS: _pass,
                Action.GATHER: _gather,
                Action.CHOOSE: _choose,
                Action.GUESS: _guess,
                Action.SKIP: _continue,
                Action.WATCH: _watch,
            }
        )
    )
