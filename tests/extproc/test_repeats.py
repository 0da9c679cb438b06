"""Envoy 1.35 to 1.37 send the last part of a large body twice: envoyproxy/envoy#46237."""

from __future__ import annotations

import json

import pytest

from extproc_fakes import FakeRouters
from lodestar_extproc.extproc.events import (
    BodyMode,
    BodyPart,
    Continue,
    Opening,
    Phase,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    RouteTo,
)
from lodestar_extproc.extproc.exchange import Exchange

FDS = BodyMode.FULL_DUPLEX_STREAMED
FULL_DUPLEX = Opening(request_body_mode=FDS, response_body_mode=FDS)
BUFFERED = Opening(response_body_mode=BodyMode.STREAMED)
STREAMED = Opening(request_body_mode=BodyMode.STREAMED, response_body_mode=BodyMode.STREAMED)
CHAT = json.dumps({"model": "m", "messages": [], "stream": True}).encode()
TOKEN = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
HEADERS = RequestHeaders(at_s=0.0, headers={":method": "POST", ":path": "/v1/chat/completions"})
LAST_PART = RequestBody(at_s=0.1, body=CHAT, end_of_stream=True)
TRAILERS = RequestTrailers(at_s=0.1, end_of_stream=True)
ANSWER_HEADERS = ResponseHeaders(at_s=0.5)
ANSWER = ResponseBody(at_s=1.0, body=TOKEN)


def started(routers, opening, *events) -> Exchange:
    exchange = Exchange(routers, opening)
    for event in events:
        exchange.receive(event)
    return exchange


@pytest.mark.parametrize("answer_begun", [False, True])
def test_in_full_duplex_a_repeated_last_part_is_ignored_and_counted(answer_begun):
    routers = FakeRouters()
    begun = [ANSWER_HEADERS] * answer_begun
    exchange = started(routers, FULL_DUPLEX, HEADERS, LAST_PART, *begun)

    assert exchange.receive(LAST_PART) == ()
    assert exchange.receive(LAST_PART) == ()

    assert exchange.n_repeats == 2
    assert len(routers.routed) == 1
    assert exchange.receive(ANSWER) == (BodyPart(Phase.RESPONSE_BODY, TOKEN, False),)


def test_in_full_duplex_a_repeated_part_is_not_kept():
    exchange = started(FakeRouters(), FULL_DUPLEX, HEADERS, LAST_PART, LAST_PART)
    assert exchange.request.held.n_bytes == 0


@pytest.mark.parametrize("opening", [BUFFERED, STREAMED])
@pytest.mark.parametrize("answer_begun", [False, True])
def test_where_envoy_waits_for_each_reply_a_repeated_body_gets_one_and_is_counted(
    opening, answer_begun
):
    routers = FakeRouters()
    begun = [ANSWER_HEADERS] * answer_begun
    exchange = started(routers, opening, HEADERS, LAST_PART, *begun)

    assert exchange.receive(LAST_PART) == (Continue(Phase.REQUEST_BODY),)

    assert exchange.n_repeats == 1
    assert len(routers.routed) == 1
    assert exchange.receive(ANSWER) == (Continue(Phase.RESPONSE_BODY),)
    assert len(routers.first_tokens) == 1


def test_trailers_after_a_buffered_body_are_no_repeat():
    part = RequestBody(at_s=0.1, body=CHAT)
    exchange = started(FakeRouters(), BUFFERED, HEADERS)
    assert isinstance(exchange.receive(part)[0], RouteTo)
    assert exchange.receive(TRAILERS) == (Continue(Phase.REQUEST_TRAILERS),)
    assert exchange.n_repeats == 0
    exchange.receive(TRAILERS)
    assert exchange.n_repeats == 1


def test_the_rest_of_a_request_that_envoy_answered_itself_is_no_repeat():
    exchange = started(FakeRouters(), FULL_DUPLEX, HEADERS, ANSWER_HEADERS, LAST_PART)
    assert exchange.n_repeats == 0


def test_an_observer_counts_repeats_as_well():
    exchange = started(FakeRouters(), Opening(observing=True), HEADERS, LAST_PART, LAST_PART)
    assert exchange.n_repeats == 1
