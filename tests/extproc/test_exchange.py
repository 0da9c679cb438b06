"""The state machine, driven by lists of events."""

from __future__ import annotations

import itertools
import json

import pytest

from extproc_fakes import FakeRouters
from lodestar_extproc.completion import AnswerForm, AnswerReport, Outcome
from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.extproc.events import (
    BodyMode,
    Continue,
    MessageKind,
    Opening,
    Phase,
    Reject,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    RouteTo,
)
from lodestar_extproc.extproc.exchange import Exchange
from lodestar_extproc.extproc.pools import Overrides
from lodestar_extproc.extproc.stream_outcome import StreamOutcome
from lodestar_extproc.extproc.transitions import ACTIONS, ProtocolError, StreamMode, StreamState
from lodestar_extproc.request import RequestKind

CHAT = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
TOKEN = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":5}}}\n\ndata: [DONE]\n\n'
BOTH = Opening(response_body_mode=BodyMode.STREAMED)
OBSERVING = Opening(observing=True)


def headers(path="/v1/chat/completions", *, method="POST", end=False, **more) -> RequestHeaders:
    given = {":method": method, ":path": path} | {k.replace("_", "-"): v for k, v in more.items()}
    return RequestHeaders(at_s=0.0, headers=given, end_of_stream=end)


def content(data: bytes = CHAT, *, end=True) -> RequestBody:
    return RequestBody(at_s=0.1, body=data, end_of_stream=end)


def answer(data: bytes = TOKEN, *, at_s=1.0, end=False, **more) -> ResponseBody:
    return ResponseBody(at_s=at_s, body=data, end_of_stream=end, **more)


def observed(data: bytes = TOKEN, **more) -> ResponseBody:
    return answer(data, decision_id="pool.1", served="10.0.0.1:8000", **more)


def play(exchange: Exchange, *events) -> list:
    """Feed *events* until the exchange is done; every reply."""
    replies = []
    for event in events:
        if exchange.done:
            break
        replies.extend(exchange.receive(event))
    return replies


# -- deciding -----------------------------------------------------------------------------------


def test_a_chat_is_sent_to_the_best_endpoints_and_the_stream_ends():
    routers = FakeRouters()
    exchange = Exchange(routers, Opening())

    replies = play(exchange, headers(x_request_id="abc"), content())

    assert replies == [
        Continue(Phase.REQUEST_HEADERS),
        RouteTo(Phase.REQUEST_BODY, ("10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000"), "pool.1"),
    ]
    assert exchange.done
    assert exchange.outcome is StreamOutcome.ROUTED
    assert routers.request_ids == ["abc"]
    assert routers.routed[0].kind is RequestKind.CHAT_COMPLETIONS


def test_the_streams_id_is_told_before_there_is_a_decision():
    routers = FakeRouters()
    exchange = Exchange(routers, Opening(), stream_id="s")

    assert exchange.receive(headers()) == (Continue(Phase.REQUEST_HEADERS, stream_id="s"),)
    exchange.receive(content())
    assert routers.stream_ids == ["s"]


def test_a_request_that_is_no_inference_is_told_no_id():
    exchange = Exchange(FakeRouters(), Opening(), stream_id="s")
    called = headers("/v1/models", method="GET")
    assert exchange.receive(called) == (Continue(Phase.REQUEST_HEADERS),)


def test_no_more_candidates_go_out_than_the_pool_sets():
    routers = FakeRouters(settings=PoolSettings(retry_candidates=2))
    choice = play(Exchange(routers, Opening()), headers(), content())[-1]
    assert choice.addresses == ("10.0.0.1:8000", "10.0.0.2:8000")


def test_in_shadow_mode_envoy_is_told_the_decision_and_not_the_choice():
    routers = FakeRouters(settings=PoolSettings(shadow=True))
    choice = play(Exchange(routers, Opening()), headers(), content())[-1]
    assert choice == RouteTo(Phase.REQUEST_BODY, (), "pool.1")


@pytest.mark.parametrize(
    "event",
    [
        headers("/v1/models", method="GET", end=True),
        headers("/v1/models", method="GET"),
        headers("/tokenize"),
        headers("/v1/chat/completions", end=True),
        RequestHeaders(at_s=0.0),
    ],
)
def test_what_is_no_inference_passes_untouched(event):
    routers = FakeRouters()
    exchange = Exchange(routers, Opening())
    assert exchange.receive(event) == (Continue(Phase.REQUEST_HEADERS),)
    assert exchange.done
    assert exchange.outcome is StreamOutcome.PASSED
    assert not routers.routed


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"model": 3}', b"\xff\xfe"])
def test_an_unreadable_body_is_routed_by_its_size(data):
    routers = FakeRouters()
    exchange = Exchange(routers, Opening())
    choice = play(exchange, headers(), content(data))[-1]
    assert isinstance(choice, RouteTo)
    assert routers.routed[0].kind is RequestKind.UNKNOWN
    assert routers.routed[0].prompt_tokens == len(data) / 4
    assert routers.routed[0].block_hashes == ()


def test_an_unreadable_body_is_rejected_in_strict_mode():
    routers = FakeRouters(settings=PoolSettings(strict=True))
    exchange = Exchange(routers, Opening())
    reply = play(exchange, headers(), content(b"{"))[-1]
    assert isinstance(reply, Reject)
    assert reply.status == 400
    assert json.loads(reply.body)["error"]["type"] == "invalid_request_error"
    assert exchange.done
    assert not routers.routed


def test_without_an_endpoint_envoy_decides():
    exchange = Exchange(FakeRouters(addresses=()), Opening())
    assert play(exchange, headers(), content())[-1] == Continue(Phase.REQUEST_BODY)
    assert exchange.done
    assert exchange.outcome is StreamOutcome.NO_ENDPOINT


@pytest.mark.parametrize("overrides", [Overrides(pool="other"), Overrides(policy="other")])
def test_a_route_to_nowhere_lets_envoy_decide(overrides):
    exchange = Exchange(FakeRouters(), Opening(), overrides)
    assert play(exchange, headers(), content())[-1] == Continue(Phase.REQUEST_BODY)
    assert exchange.outcome is StreamOutcome.BAD_ROUTE


@pytest.mark.parametrize(
    ("override", "cluster", "asked"),
    [
        (None, None, None),
        (None, "pool", "pool"),
        (None, "no pool", None),
        ("pool", "no pool", "pool"),
    ],
)
def test_the_pool_is_the_routes_then_the_clusters_then_the_only_one(override, cluster, asked):
    routers = FakeRouters()
    play(Exchange(routers, Opening(pool=cluster), Overrides(override)), headers(), content())
    assert routers.asked == [(asked, None, None)]


def test_a_streamed_upload_is_put_together():
    routers = FakeRouters()
    exchange = Exchange(routers, Opening(request_body_mode=BodyMode.STREAMED))
    parts = [content(CHAT[i : i + 10], end=False) for i in range(0, len(CHAT), 10)]

    replies = play(exchange, headers(), *parts, content(b""))

    assert [type(r) for r in replies] == [Continue] * (len(parts) + 1) + [RouteTo]
    assert routers.routed[0].model == "m"


def test_trailers_end_a_streamed_upload():
    exchange = Exchange(FakeRouters(), Opening(request_body_mode=BodyMode.STREAMED))
    replies = play(exchange, headers(), content(end=False), RequestTrailers(at_s=0.2))
    assert isinstance(replies[-1], RouteTo)
    assert replies[-1].phase is Phase.REQUEST_TRAILERS


def test_a_body_without_headers_is_read_by_its_shape():
    routers = FakeRouters()
    play(Exchange(routers, Opening()), content())
    assert routers.routed[0].model == "m"
    assert routers.routed[0].prompt_bytes > 0


def test_without_bodies_the_choice_is_made_by_size():
    routers = FakeRouters()
    exchange = Exchange(routers, Opening(request_body_mode=BodyMode.NONE))
    choice = play(exchange, headers(content_length="4000"))[-1]
    assert choice.phase is Phase.REQUEST_HEADERS
    assert routers.routed[0].prompt_tokens == 1000


def test_an_answer_before_the_choice_is_envoys_own():
    exchange = Exchange(FakeRouters(), BOTH)
    play(exchange, headers(), answer())
    assert exchange.done
    assert exchange.outcome is StreamOutcome.PASSED


def test_a_stream_cut_before_the_body_leaves_nothing_behind():
    routers = FakeRouters()
    exchange = Exchange(routers, Opening())
    exchange.receive(headers())
    exchange.close(1.0)
    exchange.close(1.0)
    assert exchange.outcome is StreamOutcome.CUT
    assert not routers.routed
    assert not routers.completions


# -- observing ----------------------------------------------------------------------------------


def test_the_first_token_is_told_and_the_stream_ends():
    routers = FakeRouters()
    exchange = Exchange(routers, OBSERVING)
    assert play(exchange, observed(at_s=1.5)) == []
    assert exchange.done
    assert exchange.outcome is StreamOutcome.OBSERVED
    (event,) = routers.first_tokens
    assert (event.decision_id, event.at_s, event.served) == ("pool.1", 1.5, "10.0.0.1:8000")
    assert not event.body_began_before
    exchange.close(2.0)
    assert not routers.completions


def test_comments_and_roles_are_no_first_token():
    routers = FakeRouters()
    exchange = Exchange(routers, OBSERVING)
    play(exchange, observed(b": keep-alive\n\n"), observed(ROLE))
    assert not routers.first_tokens
    play(exchange, observed(at_s=3.0))
    assert routers.first_tokens[0].at_s == 3.0
    assert routers.first_tokens[0].body_began_before


def test_an_answer_without_a_decision_is_not_watched():
    routers = FakeRouters()
    exchange = Exchange(routers, OBSERVING)
    play(exchange, answer())
    assert exchange.done
    assert not routers.first_tokens


def test_a_whole_answer_has_its_first_token_at_its_end():
    routers = FakeRouters()
    exchange = Exchange(routers, OBSERVING)
    play(exchange, observed(b'{"choices":[{"mess'), observed(b'age":{}}]}'))
    assert not routers.first_tokens
    play(exchange, observed(b"", at_s=4.0, end=True))
    assert routers.first_tokens[0].at_s == 4.0
    assert exchange.done


@pytest.mark.parametrize("access_log", [True, False])
def test_an_error_event_is_a_failure_at_once(access_log):
    routers = FakeRouters()
    exchange = Exchange(routers, OBSERVING, access_log=access_log)
    play(exchange, observed(b'data: {"error":{"code":503,"message":"busy"}}\n\n'))
    assert exchange.done
    assert not routers.first_tokens
    # The access log knows the end, and not that it was an error.
    assert [r.failed for r in routers.reports] == [True] * access_log
    assert [c.outcome for c in routers.completions] == [Outcome.FAILED] * (not access_log)


def test_a_refusal_has_no_first_token():
    routers = FakeRouters()
    exchange = Exchange(routers, OBSERVING)
    play(exchange, observed(b'{"detail":"Not Found"}', response_code=404, end=True))
    assert not routers.first_tokens
    assert not routers.completions


def test_a_sampled_answer_is_watched_to_its_end_for_its_usage_and_the_log_ends_it():
    routers = FakeRouters(to_the_end=True)
    exchange = Exchange(routers, OBSERVING)
    play(
        exchange,
        observed(),
        observed(TOKEN * 3),
        observed(USAGE),
        observed(b"", at_s=9.0, end=True),
    )
    assert exchange.done
    assert len(routers.first_tokens) == 1
    assert routers.reports == [AnswerReport("pool.1", False, 7, 5, 3, AnswerForm.STREAM)]
    assert not routers.completions


def test_without_an_access_log_the_end_is_told_from_here():
    routers = FakeRouters()
    exchange = Exchange(routers, OBSERVING, access_log=False)
    play(exchange, observed(), observed(USAGE), observed(b"", at_s=9.0, end=True))
    exchange.close(2.0)
    (end,) = routers.completions
    assert (end.outcome, end.at_s) == (Outcome.SERVED, 9.0)
    assert (end.prompt_tokens, end.output_tokens, end.cached_tokens) == (7, 3, 5)
    assert not routers.reports


def test_without_an_access_log_a_cut_answer_is_a_client_gone():
    routers = FakeRouters()
    exchange = Exchange(routers, OBSERVING, access_log=False)
    play(exchange, observed())
    exchange.close(2.0)
    exchange.close(3.0)
    assert [(c.outcome, c.at_s) for c in routers.completions] == [(Outcome.CLIENT_GONE, 2.0)]


def test_with_an_access_log_a_cut_answer_is_left_to_it():
    routers = FakeRouters(to_the_end=True)
    exchange = Exchange(routers, OBSERVING)
    play(exchange, observed())
    exchange.close(2.0)
    assert not routers.completions


def test_a_server_error_without_an_access_log_is_a_failure():
    routers = FakeRouters()
    exchange = Exchange(routers, OBSERVING, access_log=False)
    play(exchange, observed(b"no healthy upstream", response_code=503), observed(b"", end=True))
    assert [c.outcome for c in routers.completions] == [Outcome.FAILED]


def test_an_observer_ignores_the_request():
    routers = FakeRouters()
    exchange = Exchange(routers, OBSERVING)
    assert play(exchange, headers(), content(), RequestTrailers(at_s=0.2), observed()) == []
    assert len(routers.first_tokens) == 1
    assert not routers.routed


# -- both jobs on one stream --------------------------------------------------------------------


def test_one_stream_decides_and_sees_the_first_token():
    routers = FakeRouters()
    exchange = Exchange(routers, BOTH)

    replies = play(
        exchange,
        headers(),
        content(),
        ResponseHeaders(at_s=0.5, served="10.0.0.1:8000", response_code=200),
        answer(at_s=1.0),
    )

    assert replies[2:] == [Continue(Phase.RESPONSE_HEADERS), Continue(Phase.RESPONSE_BODY)]
    assert exchange.done
    assert exchange.outcome is StreamOutcome.ROUTED
    assert (routers.first_tokens[0].decision_id, routers.first_tokens[0].at_s) == ("pool.1", 1.0)
    assert routers.first_tokens[0].served == "10.0.0.1:8000"


def test_one_stream_without_an_access_log_tells_a_client_gone_before_the_answer():
    routers = FakeRouters()
    exchange = Exchange(routers, BOTH, access_log=False)
    play(exchange, headers(), content())
    exchange.close(5.0)
    assert [(c.decision_id, c.outcome) for c in routers.completions] == [
        ("pool.1", Outcome.CLIENT_GONE)
    ]


# -- the table ----------------------------------------------------------------------------------

EVENTS = {
    MessageKind.REQUEST_HEADERS: headers(),
    MessageKind.REQUEST_WITHOUT_BODY: headers(end=True),
    MessageKind.REQUEST_PART: content(end=False),
    MessageKind.REQUEST_END: content(),
    MessageKind.RESPONSE_HEADERS: ResponseHeaders(at_s=1.0, decision_id="pool.1"),
    MessageKind.RESPONSE_PART: observed(ROLE),
    MessageKind.RESPONSE_END: ResponseTrailers(at_s=1.0, decision_id="pool.1"),
}
OPENINGS = {
    StreamMode.BUFFERED: BOTH,
    StreamMode.STREAMED: Opening(
        request_body_mode=BodyMode.STREAMED, response_body_mode=BodyMode.STREAMED
    ),
    StreamMode.HEADERS_ONLY: Opening(
        request_body_mode=BodyMode.NONE, response_body_mode=BodyMode.STREAMED
    ),
    StreamMode.FULL_DUPLEX: Opening(
        request_body_mode=BodyMode.FULL_DUPLEX_STREAMED,
        response_body_mode=BodyMode.FULL_DUPLEX_STREAMED,
    ),
    StreamMode.OBSERVED: OBSERVING,
}


def test_every_kind_has_an_event_and_every_mode_an_opening():
    assert set(EVENTS) == set(MessageKind)
    assert all(event.kind is kind for kind, event in EVENTS.items())
    assert set(OPENINGS) == set(ACTIONS) == set(StreamMode)


@pytest.mark.parametrize("mode", list(StreamMode))
@pytest.mark.parametrize("access_log", [True, False])
def test_any_order_of_four_events_has_a_defined_answer(mode, access_log):
    for order in itertools.product(EVENTS.values(), repeat=4):
        routers = FakeRouters()
        exchange = Exchange(routers, OPENINGS[mode], access_log=access_log)
        for event in order:
            if exchange.done:
                break
            try:
                replies = exchange.receive(event)
            except ProtocolError:
                break
            if mode is StreamMode.OBSERVED:
                assert replies == ()
            elif mode is not StreamMode.FULL_DUPLEX:
                assert len(replies) == 1, "Envoy waits for exactly one reply to each message"
        exchange.close(9.0)
        exchange.close(9.0)
        assert exchange.state is StreamState.DONE
        assert len(routers.routed) <= 1
        assert len(routers.first_tokens) <= 1
        assert len(routers.completions) <= 1


def test_nothing_is_accepted_once_done():
    for event in EVENTS.values():
        exchange = Exchange(FakeRouters(), Opening())
        exchange.close(0.0)
        with pytest.raises(ProtocolError, match="while done"):
            exchange.receive(event)
