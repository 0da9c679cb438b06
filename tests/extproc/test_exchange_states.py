"""Any order of messages, legal or not, in every mode: the tables alone say where it leads."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from extproc_fakes import FakeRouters
from lodestar_extproc.config.mapped import Priorities
from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.extproc.events import (
    BodyMode,
    BodyPart,
    Continue,
    MessageKind,
    Opening,
    Phase,
    Reject,
    RequestBody,
    RequestEvent,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    RouteTo,
)
from lodestar_extproc.extproc.exchange import Exchange
from lodestar_extproc.extproc.modes import ANSWER_STRATEGIES, REQUEST_STRATEGIES
from lodestar_extproc.extproc.pools import Overrides
from lodestar_extproc.extproc.transitions import (
    ACTIONS,
    NEXT_STATES,
    RESULTS,
    Action,
    ActionResult,
    AnswerMode,
    ProtocolError,
    StreamMode,
    StreamState,
    modes_of,
)

CHAT = json.dumps({"model": "m", "messages": [], "stream": True}).encode()
TOKEN = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
DECIDING = [
    Opening(request_body_mode=request, response_body_mode=response)
    for request, response in itertools.product(BodyMode, repeat=2)
]
OPENINGS = [*DECIDING, Opening(observing=True)]
WORLDS = {
    "endpoints": {},
    "no endpoint": {"addresses": ()},
    "overloaded": {
        "excess_s": 2.0,
        "settings": PoolSettings(objective_priorities=Priorities((("batch", -1),))),
    },
    "a bug": {"bug": RuntimeError("a bug")},
    "strict": {"settings": PoolSettings(strict=True)},
    "conformance": {"settings": PoolSettings(conformance_headers=True)},
}
PATHS = st.sampled_from(["/v1/chat/completions", "/v1/models"])
PARTS = st.sampled_from([b"", b"{", CHAT, TOKEN, bytes(70_000)])
DECISION_IDS = st.sampled_from(["", "pool.1"])


class ExchangeMachine(RuleBasedStateMachine):
    """Drives one exchange as the server does, and by messages that Envoy would not send."""

    @initialize(
        opening=st.sampled_from(OPENINGS),
        world=st.sampled_from(sorted(WORLDS)),
        pool=st.sampled_from([None, "other"]),
        access_log=st.booleans(),
    )
    def open(self, opening, world, pool, access_log):
        self.stream_mode, self.answer_mode = modes_of(opening)
        self.routers = FakeRouters(**WORLDS[world])
        self.exchange = Exchange(self.routers, opening, Overrides(pool=pool), access_log=access_log)
        self.refused = False
        self.sent_back: list[object] = []

    @property
    def running(self) -> bool:
        return not self.exchange.done

    def _tell(self, event) -> None:
        before = self.exchange.state
        action = ACTIONS[self.stream_mode][before].get(event.kind)
        try:
            replies = self.exchange.receive(event)
        except ProtocolError:
            assert action is None
            assert self.exchange.done
            return
        except RuntimeError:
            assert self.exchange.state is before
            replies = self.exchange.go_on_without_us(event)
        else:
            after = NEXT_STATES[self.answer_mode]
            assert self.exchange.state in {after.get(r, before) for r in RESULTS[action]}
        self._check(event, replies)

    def _check(self, event, replies) -> None:
        assert not self.refused, "nothing follows a refusal"
        self.refused = any(isinstance(reply, Reject) for reply in replies)
        if self.refused:
            assert len(replies) == 1
            assert self.exchange.done
        elif self.stream_mode is StreamMode.OBSERVED:
            assert replies == ()
        elif isinstance(event, RequestEvent):
            self._check_request(event, replies)
        elif isinstance(event, ResponseBody) and self.answer_mode is AnswerMode.FULL_DUPLEX:
            assert b"".join(part.body for part in replies) == event.body
        else:
            assert [reply.phase for reply in replies] == [event.phase] * bool(replies)
            assert replies or self.exchange.done

    def _check_request(self, event, replies) -> None:
        assert all(reply.phase.startswith("request") for reply in replies)
        if self.stream_mode is not StreamMode.FULL_DUPLEX:
            assert [reply.phase for reply in replies] == [event.phase] * bool(replies)
            assert replies or self.exchange.done, "Envoy waits for a reply or the end"
        elif replies:
            assert replies[0].phase is Phase.REQUEST_HEADERS
            assert isinstance(replies[0], Continue | RouteTo)
            assert not self.sent_back, "a request is given back once"
            self.sent_back.extend(replies)
            assert all(isinstance(reply, BodyPart | Continue) for reply in replies[1:])

    @precondition(lambda self: self.running)
    @rule(path=PATHS, end=st.booleans())
    def request_headers(self, path, end):
        headers = {":method": "POST", ":path": path, "x-llm-d-inference-objective": "batch"}
        self._tell(RequestHeaders(at_s=0.0, headers=headers, end_of_stream=end))

    @precondition(lambda self: self.running)
    @rule(data=PARTS, end=st.booleans())
    def request_body(self, data, end):
        self._tell(RequestBody(at_s=0.1, body=data, end_of_stream=end))

    @precondition(lambda self: self.running)
    @rule()
    def request_trailers(self):
        self._tell(RequestTrailers(at_s=0.2, end_of_stream=True))

    @precondition(lambda self: self.running)
    @rule(end=st.booleans(), decision_id=DECISION_IDS)
    def response_headers(self, end, decision_id):
        self._tell(ResponseHeaders(at_s=0.5, end_of_stream=end, decision_id=decision_id))

    @precondition(lambda self: self.running)
    @rule(data=PARTS, end=st.booleans(), decision_id=DECISION_IDS)
    def response_body(self, data, end, decision_id):
        self._tell(ResponseBody(at_s=1.0, body=data, end_of_stream=end, decision_id=decision_id))

    @precondition(lambda self: self.running)
    @rule()
    def response_trailers(self):
        self._tell(ResponseTrailers(at_s=2.0, end_of_stream=True))

    @rule()
    def close(self):
        self.exchange.close(9.0)
        assert self.exchange.done

    @precondition(lambda self: not self.running)
    @rule()
    def nothing_is_accepted_after_the_end(self):
        with pytest.raises(ProtocolError, match="while done"):
            self.exchange.receive(RequestTrailers(at_s=9.0))
        assert self.exchange.go_on_without_us(RequestTrailers(at_s=9.0)) == ()

    @invariant()
    def the_state_is_in_the_table(self):
        assert self.exchange.state in ACTIONS[self.stream_mode]

    @invariant()
    def a_body_is_held_only_while_the_request_is_read(self):
        if self.exchange.state is not StreamState.READING:
            assert self.exchange.request.held.n_bytes == 0
            assert self.exchange.request.content() == b""

    @invariant()
    def everything_is_told_at_most_once(self):
        assert len(self.routers.routed) <= 1
        assert len(self.routers.first_tokens) <= 1
        assert len(self.routers.completions) <= 1


TestExchangeMachine = ExchangeMachine.TestCase
TestExchangeMachine.settings = settings(
    max_examples=150,
    stateful_step_count=12,
    suppress_health_check=[HealthCheck.too_slow],
)


def reachable(stream_mode: StreamMode, answer_mode: AnswerMode) -> set[StreamState]:
    """Every state the tables lead to from the first."""
    found, new = set(), {StreamState.IDLE}
    while new:
        found |= new
        steps = ((s, a) for s in new for a in ACTIONS[stream_mode][s].values())
        nexts = {NEXT_STATES[answer_mode].get(r, s) for s, a in steps for r in RESULTS[a]}
        new = nexts - found
    return found


@pytest.mark.parametrize("opening", OPENINGS, ids=lambda o: "+".join(map(str, modes_of(o))))
def test_from_every_state_the_tables_know_what_to_do(opening):
    stream_mode, answer_mode = modes_of(opening)
    states = reachable(stream_mode, answer_mode)
    assert StreamState.DONE in states
    assert states <= set(ACTIONS[stream_mode])


def test_the_tables_and_strategies_cover_every_mode_action_and_result():
    assert set(ACTIONS) == set(REQUEST_STRATEGIES) == set(StreamMode)
    assert set(NEXT_STATES) == set(ANSWER_STRATEGIES) == set(AnswerMode)
    assert set(RESULTS) == set(Exchange._ACTIONS) == set(Action)
    used = {a for rows in ACTIONS.values() for row in rows.values() for a in row.values()}
    assert used == set(Action)
    change_no_state = {ActionResult.SKIPPED, ActionResult.HELD}
    for next_states in NEXT_STATES.values():
        assert set(next_states) == set(ActionResult) - change_no_state


def test_an_answer_is_foreseen_in_every_state_but_the_last():
    kinds = {
        MessageKind.RESPONSE_HEADERS,
        MessageKind.RESPONSE_PART,
        MessageKind.RESPONSE_END,
    }
    for rows in ACTIONS.values():
        assert all(kinds <= set(row) for state, row in rows.items() if state != "done")
        assert not rows[StreamState.DONE]
