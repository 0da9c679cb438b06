"""Full duplex: what comes back for what Envoy sends, and in which order."""

from __future__ import annotations

import itertools
import json

import pytest

from extproc_fakes import FakeRouters
from lodestar_extproc import names
from lodestar_extproc.completion import Outcome
from lodestar_extproc.config.mapped import Priorities
from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.extproc import held_body
from lodestar_extproc.extproc.events import (
    BodyMode,
    BodyPart,
    Continue,
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
from lodestar_extproc.extproc.held_body import MAX_PART_BYTES
from lodestar_extproc.extproc.pools import Overrides
from lodestar_extproc.extproc.stream_outcome import StreamOutcome
from lodestar_extproc.extproc.transitions import ProtocolError
from lodestar_extproc.request import Subset

FDS = BodyMode.FULL_DUPLEX_STREAMED
BOTH_WAYS = Opening(request_body_mode=FDS, response_body_mode=FDS)
CHAT = json.dumps({"model": "m", "messages": [], "stream": True}).encode()
TOKEN = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
PODS = ("10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000")
CHOICE = RouteTo(Phase.REQUEST_HEADERS, PODS, "pool.1")


def headers(*, end=False, subset=None, **more) -> RequestHeaders:
    given = {":method": "POST", ":path": "/v1/chat/completions"}
    given |= {k.replace("_", "-"): v for k, v in more.items()}
    return RequestHeaders(at_s=0.0, headers=given, end_of_stream=end, subset=subset)


def content(data: bytes = CHAT, *, end=True, **more) -> RequestBody:
    return RequestBody(at_s=0.1, body=data, end_of_stream=end, **more)


def answer(data: bytes = TOKEN, *, end=False, at_s=1.0) -> ResponseBody:
    return ResponseBody(at_s=at_s, body=data, end_of_stream=end)


def started(routers=None, *events, opening=BOTH_WAYS, **options) -> Exchange:
    exchange = Exchange(routers or FakeRouters(), opening, **options)
    for event in events:
        exchange.receive(event)
    return exchange


def part(data: bytes, *, end=False, phase=Phase.REQUEST_BODY) -> BodyPart:
    return BodyPart(phase, data, end)


# -- the request --------------------------------------------------------------------------------


def test_nothing_is_said_before_the_whole_request_is_here():
    exchange = started()
    assert exchange.receive(headers()) == ()
    assert exchange.receive(content(CHAT[:9], end=False)) == ()
    assert exchange.receive(content(CHAT[9:], end=False)) == ()
    assert exchange.receive(content(b"")) == (CHOICE, part(CHAT, end=True))
    assert exchange.outcome is StreamOutcome.ROUTED
    assert not exchange.done


@pytest.mark.parametrize("n_bytes", [1, 61_999, 62_000, 62_001, 124_000, 1_000_000])
def test_the_held_body_comes_back_whole_in_parts_that_envoy_takes(n_bytes):
    data = bytes(i % 251 for i in range(n_bytes))
    first, *parts = started(None, headers()).receive(content(data))
    assert isinstance(first, RouteTo)
    assert b"".join(p.body for p in parts) == data
    assert max(len(p.body) for p in parts) <= MAX_PART_BYTES
    assert [p.end_of_stream for p in parts] == [False] * (len(parts) - 1) + [True]
    assert len(parts) == -(-n_bytes // MAX_PART_BYTES)


def test_an_empty_body_still_ends_the_stream():
    assert started(None, headers()).receive(content(b"")) == (CHOICE, part(b"", end=True))


def test_trailers_end_a_request_and_are_answered_last():
    exchange = started(None, headers(), content(end=False))
    replies = exchange.receive(RequestTrailers(at_s=0.2, end_of_stream=True))
    assert replies == (CHOICE, part(CHAT), Continue(Phase.REQUEST_TRAILERS))


def test_trailers_without_a_body_bring_no_part():
    replies = started(None, headers()).receive(RequestTrailers(at_s=0.2, end_of_stream=True))
    assert replies == (CHOICE, Continue(Phase.REQUEST_TRAILERS))


@pytest.mark.parametrize("more", [{}, {":method": "GET", ":path": "/v1/models"}])
def test_without_a_body_the_choice_is_made_at_once(more):
    routers = FakeRouters()
    exchange = started(routers)
    assert exchange.receive(headers(end=True, **more)) == (CHOICE,)
    assert routers.routed[0].prompt_bytes == 0


@pytest.mark.parametrize("data", [b"no healthy upstream", b"{}", b"\xff"])
def test_what_is_no_inference_is_chosen_for_as_well(data):
    replies = started(None, RequestHeaders(at_s=0.0)).receive(content(data))
    assert replies == (CHOICE, part(data, end=True))


def test_what_is_no_inference_is_400_in_strict_mode_and_comes_back_to_nobody():
    exchange = started(FakeRouters(settings=PoolSettings(strict=True)), headers())
    (reply,) = exchange.receive(content(b"no healthy upstream"))
    assert isinstance(reply, Reject)
    assert reply.status == 400
    assert exchange.done


def test_a_body_beyond_what_is_kept_is_413(monkeypatch):
    monkeypatch.setattr(held_body, "MAX_BODY_BYTES", 100)
    exchange = started(None, headers(), content(bytes(99), end=False))
    (reply,) = exchange.receive(content(bytes(1), end=False))
    assert isinstance(reply, Reject)
    assert reply.status == 413
    assert exchange.done


def test_a_route_to_nowhere_is_envoys_to_decide_with_the_body_given_back():
    exchange = started(None, headers(), overrides=Overrides(pool="no such pool"))
    replies = exchange.receive(content())
    assert replies == (Continue(Phase.REQUEST_HEADERS), part(CHAT, end=True))
    # Envoy may have sent parts of the answer already: to end the stream now would lose them.
    exchange.receive(ResponseHeaders(at_s=0.5))
    assert exchange.receive(answer()) == (part(TOKEN, phase=Phase.RESPONSE_BODY),)
    assert not exchange.done
    assert exchange.outcome is StreamOutcome.BAD_ROUTE


# -- who may be chosen --------------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True])
def test_only_the_gateways_subset_is_chosen_from(late):
    hint = Subset.of(["10.0.0.3"])
    first, second = (None, hint) if late else (hint, None)
    choice = started(None, headers(subset=first)).receive(content(subset=second))[0]
    assert choice.addresses == ("10.0.0.3:8000",)


def test_the_bodys_subset_replaces_that_of_the_headers():
    exchange = started(None, headers(subset=Subset.of(["10.0.0.1"])))
    choice = exchange.receive(content(subset=Subset.of(["10.0.0.2"])))[0]
    assert choice.addresses == ("10.0.0.2:8000",)


@pytest.mark.parametrize("entries", [[], ["192.168.1.99:8000"]])
@pytest.mark.parametrize("opening", [BOTH_WAYS, Opening()])
def test_a_subset_without_endpoints_is_503_however_envoy_talks(entries, opening):
    hint = Subset.of(entries)
    (reply,) = started(None, headers(subset=hint), opening=opening).receive(content(subset=hint))
    assert isinstance(reply, Reject)
    assert reply.status == 503
    assert reply.headers == ((names.DROPPED_REASON, "rejected-no-endpoints"),)


@pytest.mark.parametrize(
    ("opening", "settings", "refused"),
    [
        (BOTH_WAYS, {}, True),
        (Opening(), {}, False),
        (Opening(), {"answer_503": True}, True),
    ],
)
def test_without_endpoints_a_picker_answers_503_and_a_gateway_of_its_own_decides(
    opening, settings, refused
):
    routers = FakeRouters(addresses=(), settings=PoolSettings(**settings))
    exchange = started(routers, headers(), opening=opening)
    (reply,) = exchange.receive(content())
    assert isinstance(reply, Reject) is refused
    assert exchange.outcome is StreamOutcome.NO_ENDPOINT
    assert exchange.done


def test_a_bug_of_ours_gives_the_request_back():
    exchange = started(FakeRouters(bug=RuntimeError("a bug")), headers())
    event = content()
    with pytest.raises(RuntimeError):
        exchange.receive(event)
    given = exchange.go_on_without_us(event)
    assert given == (Continue(Phase.REQUEST_HEADERS), part(CHAT, end=True))
    assert exchange.receive(answer()) == (part(TOKEN, phase=Phase.RESPONSE_BODY),)


def test_a_bug_of_ours_loses_no_part_of_an_answer():
    exchange = started(None, headers(), content(), ResponseHeaders(at_s=0.5))
    given = exchange.go_on_without_us(answer())
    assert given == (part(TOKEN, phase=Phase.RESPONSE_BODY),)
    assert exchange.receive(answer()) == (part(TOKEN, phase=Phase.RESPONSE_BODY),)


# -- the answer ---------------------------------------------------------------------------------


def test_every_part_of_an_answer_goes_back_at_once_to_its_end():
    routers = FakeRouters()
    exchange = started(routers, headers(), content(), access_log=False)
    begun = ResponseHeaders(at_s=0.5, served="10.0.0.2:8000", response_code=200)
    assert exchange.receive(begun) == (Continue(Phase.RESPONSE_HEADERS),)
    for at_s in (1.0, 2.0, 3.0):
        replies = exchange.receive(answer(at_s=at_s))
        assert replies == (part(TOKEN, phase=Phase.RESPONSE_BODY),)
    assert not exchange.done
    replies = exchange.receive(answer(b"", end=True, at_s=4.0))
    assert replies == (part(b"", end=True, phase=Phase.RESPONSE_BODY),)
    assert exchange.done
    assert [(t.at_s, t.served) for t in routers.first_tokens] == [(1.0, "10.0.0.2:8000")]
    (end,) = routers.completions
    assert (end.outcome, end.at_s, end.served) == (Outcome.SERVED, 4.0, "10.0.0.2:8000")


def test_with_an_access_log_parts_go_back_though_nothing_more_is_read():
    routers = FakeRouters()
    exchange = started(routers, headers(), content(), ResponseHeaders(at_s=0.5))
    for _ in range(3):
        assert exchange.receive(answer()) == (part(TOKEN, phase=Phase.RESPONSE_BODY),)
    assert not exchange.done
    assert len(routers.first_tokens) == 1
    assert not routers.completions


def test_trailers_end_an_answer_after_its_parts():
    exchange = started(None, headers(), content(), ResponseHeaders(at_s=0.5), answer())
    replies = exchange.receive(ResponseTrailers(at_s=2.0, end_of_stream=True))
    assert replies == (Continue(Phase.RESPONSE_TRAILERS),)
    assert exchange.done


def test_a_large_part_of_an_answer_is_cut_for_envoy():
    exchange = started(None, headers(), content(), ResponseHeaders(at_s=0.5))
    parts = exchange.receive(answer(bytes(100_000)))
    assert [len(p.body) for p in parts] == [62_000, 38_000]


def test_a_client_that_leaves_mid_answer_is_told():
    routers = FakeRouters()
    exchange = started(
        routers, headers(), content(), ResponseHeaders(at_s=0.5), answer(), access_log=False
    )
    exchange.close(2.0)
    assert [c.outcome for c in routers.completions] == [Outcome.CLIENT_GONE]


def test_an_answer_before_the_choice_is_envoys_own_and_goes_back():
    routers = FakeRouters()
    exchange = started(routers, headers(), content(end=False))
    assert exchange.receive(ResponseHeaders(at_s=0.5)) == (Continue(Phase.RESPONSE_HEADERS),)
    # What still comes of the request is not answered: its headers never were.
    assert exchange.receive(content()) == ()
    replies = exchange.receive(answer(b"413", end=True))
    assert replies == (part(b"413", end=True, phase=Phase.RESPONSE_BODY),)
    assert exchange.outcome is StreamOutcome.PASSED
    assert not routers.routed


def test_where_answers_are_not_shown_the_stream_ends_with_the_request():
    exchange = started(opening=Opening(request_body_mode=FDS))
    exchange.receive(headers())
    assert exchange.receive(content()) == (CHOICE, part(CHAT, end=True))
    assert exchange.done


EVENTS = (
    headers(),
    headers(end=True),
    content(end=False),
    content(),
    RequestTrailers(at_s=0.2, end_of_stream=True),
    ResponseHeaders(at_s=1.0),
    answer(),
    answer(end=True),
    ResponseTrailers(at_s=2.0, end_of_stream=True),
)


def test_in_any_order_every_byte_comes_back_once_and_headers_first():
    """Of a request nothing before its headers' reply; of an answer each part as it came."""
    for order in itertools.product(EVENTS, repeat=4):
        exchange = Exchange(FakeRouters(), BOTH_WAYS)
        replies, sent = [], b""
        for event in order:
            if exchange.done:
                break
            try:
                given = exchange.receive(event)
            except ProtocolError:
                break
            if isinstance(event, ResponseBody):
                assert b"".join(p.body for p in given) == event.body
            if isinstance(event, RequestBody):
                sent += event.body
            replies.extend(given)
        of_request = [r for r in replies if r.phase.startswith("request")]
        if of_request:
            assert of_request[0] == CHOICE
            parts = [r.body for r in of_request if isinstance(r, BodyPart)]
            # What came after an answer had begun goes nowhere.
            assert sent.startswith(b"".join(parts))
            assert sum(isinstance(r, RouteTo) for r in replies) == 1


# -- shedding -------------------------------------------------------------------------------------

SHEDDING = PoolSettings(objective_priorities=Priorities((("batch", -1), ("chat", 2))))


@pytest.mark.parametrize("opening", [BOTH_WAYS, Opening()])
@pytest.mark.parametrize("name", names.OBJECTIVE_HEADERS)
def test_what_may_be_shed_is_answered_429_with_a_time_to_wait(opening, name):
    routers = FakeRouters(settings=SHEDDING, excess_s=2.4)
    asked = RequestHeaders(
        at_s=0.0, headers={":method": "POST", ":path": "/v1/chat/completions", name: "batch"}
    )
    exchange = started(routers, asked, opening=opening)
    (reply,) = exchange.receive(content())
    assert isinstance(reply, Reject)
    assert reply.status == 429
    assert dict(reply.headers) == {
        "retry-after": "3",
        names.DROPPED_REASON: "rejected-saturated",
    }
    assert exchange.outcome is StreamOutcome.SHED
    assert not routers.routed


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"x_llm_d_inference_objective": "chat"},
        {"x_llm_d_inference_objective": "chat", "x_gateway_inference_objective": "batch"},
    ],
)
def test_nothing_else_is_shed(given):
    exchange = started(FakeRouters(settings=SHEDDING, excess_s=2.4), headers(**given))
    assert exchange.receive(content())[0] == CHOICE


# -- one way only -------------------------------------------------------------------------------

ANSWERS_ONLY = Opening(response_body_mode=FDS)


def test_of_a_held_request_the_answer_may_come_otherwise():
    exchange = started(opening=Opening(request_body_mode=FDS, response_body_mode=BodyMode.STREAMED))
    exchange.receive(headers())
    exchange.receive(content())
    assert exchange.receive(answer()) == (Continue(Phase.RESPONSE_BODY),)
    assert exchange.done


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/tokenize"])
def test_of_any_request_an_answer_in_full_duplex_goes_back(path):
    exchange = started(opening=ANSWERS_ONLY)
    exchange.receive(headers(**{":path": path}))
    if exchange.outcome is not StreamOutcome.PASSED:
        assert isinstance(exchange.receive(content())[0], RouteTo)
    for _ in range(3):
        assert exchange.receive(answer()) == (part(TOKEN, phase=Phase.RESPONSE_BODY),)


def test_an_answer_before_the_choice_goes_back_in_full_duplex():
    exchange = started(None, headers(), opening=ANSWERS_ONLY)
    for _ in range(2):
        assert exchange.receive(answer()) == (part(TOKEN, phase=Phase.RESPONSE_BODY),)


# -- conformance tests --------------------------------------------------------------------------

CONFORMANT = PoolSettings(conformance_headers=True)


def test_a_conformance_test_says_where_to_go_before_the_gateway_does():
    exchange = started(
        FakeRouters(settings=CONFORMANT),
        headers(test_epp_endpoint_selection="10.0.0.2", subset=Subset.of(["10.0.0.3"])),
    )
    choice = exchange.receive(content())[0]
    assert choice.addresses == ("10.0.0.2:8000",)
    assert choice.headers == (
        ("x-echo-set-header", "x-conformance-test-served-endpoint:10.0.0.2:8000"),
    )


def test_a_client_cannot_say_where_to_go():
    exchange = started(None, headers(test_epp_endpoint_selection="10.0.0.2"))
    assert exchange.receive(content())[0] == CHOICE


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        (None, "fail: missing envoy lb metadata"),
        ({}, "fail: missing destination endpoint served metadata"),
        ({names.SERVED: "10.0.0.2:3000"}, "10.0.0.2:3000"),
    ],
)
def test_a_conformance_test_is_told_who_served(metadata, told):
    exchange = started(FakeRouters(settings=CONFORMANT), headers(), content())
    replies = exchange.receive(ResponseHeaders(at_s=0.5, metadata=metadata))
    assert replies == (Continue(Phase.RESPONSE_HEADERS, ((names.TEST_SERVED, told),)),)
