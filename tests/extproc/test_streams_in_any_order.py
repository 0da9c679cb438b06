"""The three streams of many requests in any order, on a real router, beside a model of the truth.

A request has a stream on which it is decided, one on which its answer is seen, and an entry in the
access log. Each may be cut, come twice, come late or never come; engines come and go meanwhile.
"""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from builders import Recorder, a_request, a_router, an_endpoint
from in_any_order import runs
from lodestar_extproc.completion import Completion, FirstToken, Outcome
from lodestar_extproc.extproc.events import (
    Opening,
    RequestBody,
    RequestHeaders,
    ResponseBody,
    ResponseHeaders,
    RouteTo,
    Wait,
)
from lodestar_extproc.extproc.exchange import Exchange
from lodestar_extproc.routing.routers import Routers

TIMEOUT_S = 50.0
HEADERS = {":method": "POST", ":path": "/v1/chat/completions"}
ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
TOKEN = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
END = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2}}\n\ndata: [DONE]\n\n'
ERROR = b'data: {"error":{"message":"out of memory"}}\n\n'
PARTS = st.sampled_from(
    [ROLE, TOKEN, ROLE + TOKEN, b"", TOKEN[:20], END, ERROR, b"<html>", bytes(100)]
)
ADDRESSES = [an_endpoint(number).address for number in range(1, 5)]
SERVED = st.sampled_from([None, *ADDRESSES, "10.9.9.9:8000"])
TOLD_OUTCOMES = (Outcome.SERVED, Outcome.CLIENT_GONE, Outcome.FAILED)
CUTS = ("in its body", "before its body")
SHORT_BYTES = (10, 4_000)
LONG_BYTES = 100_000
"""Some seconds of prefill: who comes behind it is held."""
N_TAUGHT = 12


class TokenRecorder(Recorder):
    """Keeps, too, whose first tokens it was told of."""

    def __init__(self):
        super().__init__()
        self.began = []

    def first_token(self, decision, first_token):
        super().first_token(decision, first_token)
        self.began.append(decision.decision_id)


class TrafficMachine(RuleBasedStateMachine):
    """Drives exchanges as the server does; every decision is one that a listener was told of."""

    deciding = Bundle("deciding")
    observing = Bundle("observing")

    @initialize(
        policy=st.sampled_from(["learned", "learned", "least_request"]),
        access_log=st.booleans(),
        learned=st.booleans(),
    )
    def begin(self, policy, access_log, learned):
        self.at_s, self.n_streams = 1.0, 0
        self.access_log = access_log
        self.told = TokenRecorder()
        self.router = a_router(
            2,
            listeners=[self.told],
            policy=policy,
            burn_in_samples=0,
            request_timeout_s=TIMEOUT_S,
            observed_ratio=0.5,
        )
        self.routers = Routers([self.router], lambda *_: None)
        self.decided: dict[str, str] = {}
        """Ids of decisions by their streams."""
        self.open: dict[str, str] = {}
        """Where the requests that nobody has ended yet were sent, by decision."""
        self.members = ADDRESSES[:2]
        self.held: dict[str, Exchange] = {}
        if learned:
            self._teach()

    def _teach(self):
        """Prompts of all lengths: where nothing is predicted nothing is held."""
        for n_tokens in np.linspace(1000.0, LONG_BYTES / 3, N_TAUGHT).tolist():
            request = a_request(b"", prompt_tokens=n_tokens, prompt_bytes=int(4 * n_tokens))
            decision = self.router.route(request, request_id="r", at_s=self.at_s)
            known = decision.decision_id, self.at_s + 1e-4 * n_tokens
            self.router.first_token(FirstToken(*known, decision.address))
            self.router.complete(
                Completion(known[1] + 0.1, Outcome.SERVED, known[0], served=decision.address)
            )
            self.at_s += 10.0

    # -- requests -------------------------------------------------------------------------------

    @rule(target=deciding, n_bytes=st.sampled_from(SHORT_BYTES))
    def a_request_comes(self, n_bytes):
        return self._comes(n_bytes)

    @rule(target=deciding)
    def a_long_request_comes(self):
        return self._comes(LONG_BYTES)

    @rule(target=deciding, n_bytes=st.sampled_from(SHORT_BYTES), cut=st.sampled_from(CUTS))
    def a_part_of_a_request_comes(self, n_bytes, cut):
        return self._comes(n_bytes, cut)

    def _comes(self, n_bytes, cut=None):
        self.n_streams += 1
        stream_id = f"s{self.n_streams}"
        exchange = Exchange(
            self.routers, Opening(), stream_id=stream_id, access_log=self.access_log
        )
        exchange.receive(RequestHeaders(at_s=self.at_s, headers=HEADERS))
        if cut != "before its body":
            self._send_body(stream_id, exchange, n_bytes, whole=cut is None)
        return stream_id, exchange

    def _send_body(self, stream_id, exchange, n_bytes, *, whole):
        turn = {"role": "user", "content": f"{n_bytes} ".ljust(n_bytes, "x")}
        body = json.dumps({"model": "m", "messages": [turn], "stream": True}).encode()
        body = body if whole else body[: len(body) // 2]
        before = len(self.told.decisions)
        (reply,) = exchange.receive(RequestBody(at_s=self.at_s, body=body, end_of_stream=True))
        if isinstance(reply, Wait):
            assert len(self.told.decisions) == before
            self.held[stream_id] = exchange
        else:
            self._note(stream_id, reply)

    def _note(self, stream_id, reply):
        if not isinstance(reply, RouteTo):
            assert not self.members, "left to Envoy, though there are endpoints"
            return
        assert set(reply.addresses) <= set(self.members)
        assert self.told.decisions[-1].decision_id == reply.decision_id
        self.decided[stream_id] = reply.decision_id
        self.open[reply.decision_id] = reply.addresses[0]

    @rule(stream=deciding)
    def the_stream_of_a_request_is_cut(self, stream):
        stream_id, exchange = stream
        self._withdraw(stream_id)
        known = self.decided.get(stream_id)
        exchange.close(self.at_s)
        exchange.close(self.at_s)
        assert exchange.request.held.n_bytes == 0
        assert (known in self.open) is (known in {d.decision_id for d in self._open_decisions()})

    def _withdraw(self, stream_id):
        """As the server does for whoever leaves while a request is held."""
        exchange = self.held.pop(stream_id, None)
        if exchange is not None and exchange.turn is not None:
            exchange.turn.queue.withdraw(exchange.turn.ticket)

    def _let_turns_come(self):
        while (ticket := self.router.admission.next_turn(self.at_s)) is not None:
            (stream_id,) = (s for s, e in self.held.items() if e.turn and e.turn.ticket is ticket)
            exchange = self.held.pop(stream_id)
            (reply,) = exchange.turn_came(self.at_s)
            self._note(stream_id, reply)

    # -- answers --------------------------------------------------------------------------------

    @rule(
        target=observing,
        stream=deciding,
        known=st.sampled_from([True, True, True, False]),
        code=st.sampled_from([200, 200, None, 400, 503]),
        served=SERVED,
        body=PARTS,
        times=st.sampled_from([1, 1, 2]),
    )
    def an_answer_begins(self, stream, known, code, served, body, times):
        """Perhaps on two streams, as where a filter stands in a file twice."""
        decision_id = self.decided.get(stream[0], "") if known else "pool.unknown"
        for _ in range(times):
            exchange = Exchange(self.routers, Opening(observing=True), access_log=self.access_log)
            answer = exchange, decision_id
            self._show(answer, ResponseHeaders, response_code=code, served=served)
            self._show(answer, ResponseBody, body=body)
        return answer

    @rule(answer=observing, body=PARTS, served=SERVED, end=st.booleans())
    def a_part_of_it_comes(self, answer, body, served, end):
        self._show(answer, ResponseBody, body=body, served=served, end_of_stream=end)

    def _show(self, answer, kind, **told):
        exchange, decision_id = answer
        if not exchange.done:
            assert exchange.receive(kind(at_s=self.at_s, decision_id=decision_id, **told)) == ()
            self._forget_what_ended()

    @rule(answer=observing)
    def its_stream_is_cut(self, answer):
        answer[0].close(self.at_s)
        self._forget_what_ended()

    def _forget_what_ended(self):
        """Where there is an access log, an answer that is seen ends nothing."""
        ended = self.open.keys() - {d.decision_id for d in self._open_decisions()}
        assert not ended or not self.access_log
        for decision_id in ended:
            del self.open[decision_id]

    @rule(
        stream=deciding,
        by=st.sampled_from(["decision", "decision", "stream", "neither"]),
        outcome=st.sampled_from(TOLD_OUTCOMES),
        served=SERVED,
        code=st.sampled_from([None, 200, 404, 503]),
        attempts=st.sampled_from([None, 1, 3]),
        ttft_s=st.sampled_from([None, 0.0, 0.3]),
    )
    def the_access_log_tells_an_end(self, stream, by, **told):
        decision_id = self.decided.get(stream[0], "")
        joined = {
            "decision": {"decision_id": decision_id},
            "stream": {"stream_id": stream[0]},
            "neither": {"decision_id": "pool.unknown"},
        }[by]
        outcome, code = told.pop("outcome"), told.pop("code")
        end = Completion(self.at_s, outcome, response_code=code, **joined, **told)
        meant = by != "neither" and decision_id in self.open
        assert self.routers.complete(end) is meant
        if meant:
            del self.open[decision_id]

    # -- engines and time ------------------------------------------------------------------------

    @rule(numbers=st.sampled_from([{1, 2}, {1, 2, 3}, {2, 3, 4}, {4}, set()]))
    def members_change(self, numbers):
        endpoints = [an_endpoint(number) for number in sorted(numbers)]
        self.router.set_endpoints(endpoints)
        self.members = [endpoint.address for endpoint in endpoints]

    @rule(by_s=st.sampled_from([0.01, 0.1, 0.5, 3.0, TIMEOUT_S + 1]))
    def time_passes(self, by_s):
        self.at_s += by_s
        old = {d.decision_id for d in self.told.decisions if d.at_s < self.at_s - TIMEOUT_S}
        self.router.expire(self.at_s)
        self.open = {k: address for k, address in self.open.items() if k not in old}
        self._let_turns_come()

    # -- what must hold --------------------------------------------------------------------------

    def _open_decisions(self):
        ended = {each.decision.decision_id for each in self.told.ended_requests}
        return [d for d in self.told.decisions if d.decision_id not in ended]

    @invariant()
    def what_is_open_is_what_nobody_ended(self):
        assert self.router.n_open == len(self.open)
        assert {d.decision_id for d in self._open_decisions()} == self.open.keys()

    @invariant()
    def everything_is_told_once(self):
        told = Counter(each.decision.decision_id for each in self.told.ended_requests)
        told.update(f"first token of {decision_id}" for decision_id in self.told.began)
        assert max(told.values(), default=1) == 1

    @invariant()
    def load_is_what_is_open(self):
        fleet = self.router.fleet
        assert fleet.n_in_flight <= len(self.open)
        snapshot = fleet.everything(self.at_s)
        assert snapshot.in_flight.sum() == fleet.n_in_flight
        for name in ("prefill_requests", "prefill_uncached_tokens", "decode_requests"):
            column = getattr(snapshot, name)
            assert np.all(np.isfinite(column) & (column >= 0)), name

    @invariant()
    def what_is_held_waits_in_the_queue(self):
        waiting = {exchange.turn.ticket for exchange in self.held.values()}
        assert set(self.router.admission.held) == waiting

    def teardown(self):
        if not hasattr(self, "router"):
            return
        for stream_id in list(self.held):
            self._withdraw(stream_id)
        self.router.expire(self.at_s + 2 * TIMEOUT_S)
        assert self.router.n_open == self.router.fleet.n_in_flight == 0
        assert not self.router.admission.held
        assert not self.router._open._id_of_stream, "streams of requests that are over"
        assert not self.router.fleet.everything(self.at_s).in_flight.any()


class TestTrafficInAnyOrder(TrafficMachine.TestCase):
    settings = runs(60, 30)


@pytest.mark.slow
@pytest.mark.timeout(1800)
class TestTrafficInAnyOrderForLong(TrafficMachine.TestCase):
    settings = runs(1500, 60)
