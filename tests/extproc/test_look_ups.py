"""Requests for what one engine keeps: sent there in every mode, decided nowhere."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from test_extproc_server import replies_to, request_headers, running

from extproc_fakes import FakeRouters
from lodestar_extproc import names
from lodestar_extproc.completion import KeptState
from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.extproc import paths
from lodestar_extproc.extproc.events import (
    BodyMode,
    BodyPart,
    Continue,
    Opening,
    Phase,
    RequestBody,
    RequestHeaders,
    ResponseBody,
    ResponseHeaders,
    RouteTo,
)
from lodestar_extproc.extproc.exchange import Exchange
from lodestar_extproc.extproc.stream_outcome import StreamOutcome
from lodestar_extproc.request import Subset, name_key
from waiting import until

KEEPER = "10.0.0.2:8000"
LOOKUP = f"pool.kept-{name_key('resp_1'):016x}"
FDS = BodyMode.FULL_DUPLEX_STREAMED
MODES = [BodyMode.BUFFERED, BodyMode.STREAMED, BodyMode.NONE]


def a_request(path="/v1/responses/resp_1", method="GET", *, end=True, subset=None):
    given = {":method": method, ":path": path}
    return RequestHeaders(at_s=0.0, headers=given, end_of_stream=end, subset=subset)


def routers(**changes) -> FakeRouters:
    return FakeRouters(keepers={"resp_1": KEEPER}, **changes)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/responses/resp_1"),
        ("GET", "/v1/responses/resp_1/"),
        ("GET", "/responses/resp_1?stream=true&starting_after=4"),
        ("GET", "/openai/v1/responses/resp_1/input_items?limit=2"),
        ("GET", "/openai/deployments/m/responses/resp_1"),
        ("GET", "/v1/chat/completions/resp_1/messages"),
        ("GET", "/v1/conversations/resp%5F1/items"),
        ("DELETE", "/v1/responses/resp_1"),
        ("POST", "/v1/responses/resp_1/cancel"),
    ],
)
def test_it_goes_to_who_keeps_it(method, path, mode):
    told = routers()
    exchange = Exchange(told, Opening(request_body_mode=mode))

    replies = exchange.receive(a_request(path, method))

    assert replies == (RouteTo(Phase.REQUEST_HEADERS, (KEEPER,), LOOKUP),)
    assert (exchange.done, exchange.outcome) == (True, StreamOutcome.LOOKED_UP)
    assert told.routed == []


@pytest.mark.parametrize("mode", MODES[:2])
def test_one_with_a_body_is_told_before_the_body_comes(mode):
    exchange = Exchange(routers(), Opening(request_body_mode=mode))
    request = a_request("/v1/responses/resp_1/cancel", "POST", end=False)
    assert exchange.receive(request) == (RouteTo(Phase.REQUEST_HEADERS, (KEEPER,), LOOKUP),)
    assert exchange.done


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/responses/resp_9"), ("POST", "/v1/conversations"), ("POST", "/v1/files")],
)
def test_where_nobody_may_be_named_envoy_balances_and_the_answer_is_known(method, path):
    exchange = Exchange(routers(), Opening())
    (reply,) = exchange.receive(a_request(path, method))
    assert (reply.addresses, reply.decision_id[:10]) == ((), "pool.kept-")


@pytest.mark.parametrize(
    "path", ["/v1/responses", "/v1/models/m", "/health", "/v1/files", "/v1/chat/completions"]
)
def test_what_names_nothing_kept_is_left_alone(path):
    exchange = Exchange(routers(), Opening())
    assert exchange.receive(a_request(path)) == (Continue(Phase.REQUEST_HEADERS),)
    assert exchange.outcome is StreamOutcome.PASSED


@pytest.mark.parametrize(
    "path",
    ["/v1/chat/completions/render", "/v1/responses/input_tokens?a=b", "/chat/completions/render/"],
)
def test_a_verb_where_an_id_may_stand_is_no_id(path):
    exchange = Exchange(FakeRouters(keepers={"render": KEEPER, "input_tokens": KEEPER}), Opening())
    assert exchange.receive(a_request(path, "POST")) == (Continue(Phase.REQUEST_HEADERS),)
    assert paths.kept_name("/v1/responses/rendered") == "rendered"


def test_inference_is_never_a_look_up():
    for path in ("/v1/responses", "/v1/responses/compact", "/v1/chat/completions"):
        assert paths.kind_of("POST", path) is not None
        exchange = Exchange(routers(), Opening())
        assert exchange.receive(a_request(path, "POST", end=False)) == (
            Continue(Phase.REQUEST_HEADERS),
        )


def test_a_pool_in_shadow_names_nobody():
    told = routers(settings=PoolSettings(shadow=True))
    (reply,) = Exchange(told, Opening()).receive(a_request())
    assert reply.addresses == ()


def test_a_gateway_that_allows_others_only_is_obeyed():
    allowed = a_request(subset=Subset.of(["10.0.0.1:8000"]))
    (reply,) = Exchange(routers(), Opening()).receive(allowed)
    assert reply.addresses == ()


# -- full duplex ----------------------------------------------------------------------------------

DUPLEX = Opening(request_body_mode=FDS, response_body_mode=FDS)


def test_in_full_duplex_it_is_given_back_whole_and_its_answer_is_read():
    told = routers()
    exchange = Exchange(told, DUPLEX)
    request = a_request("/v1/responses/resp_1/cancel", "POST", end=False)
    assert exchange.receive(request) == ()
    replies = exchange.receive(RequestBody(at_s=0.1, body=b"{}", end_of_stream=True))
    assert replies == (
        RouteTo(Phase.REQUEST_HEADERS, (KEEPER,), LOOKUP),
        BodyPart(Phase.REQUEST_BODY, b"{}", end_of_stream=True),
    )
    exchange.receive(ResponseHeaders(at_s=0.2, response_code=200))
    data = json.dumps({"id": "resp_1", "object": "response", "status": "cancelled"}).encode()
    exchange.receive(ResponseBody(at_s=0.3, body=data, end_of_stream=True))
    (kept,) = told.kept_answers
    assert (kept.decision_id, kept.name, kept.state) == (LOOKUP, "resp_1", KeptState.ENDED)


def test_in_full_duplex_one_for_nobody_is_decided_for_a_picker_has_to_name_an_endpoint():
    told = routers()
    (reply, *_) = Exchange(told, DUPLEX).receive(a_request("/v1/conversations", "POST"))
    assert reply.addresses == told.addresses
    assert len(told.routed) == 1


# -- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [404, 410])
def test_an_answer_that_knows_nothing_of_it_says_so(code):
    told = routers()
    exchange = Exchange(told, Opening(observing=True))
    answer = ResponseBody(
        at_s=1.0, body=b'{"error": {}}', decision_id=LOOKUP, served=KEEPER, response_code=code
    )
    exchange.receive(answer if code == 404 else replace(answer, end_of_stream=True))
    (kept,) = told.kept_answers
    assert (kept.name, kept.state, kept.served) == ("", KeptState.GONE, KEEPER)


async def test_a_look_up_that_overtakes_the_observer_waits_for_it():
    told = routers()
    known, told.keepers, told.owes = told.keepers, {}, True
    async with running(told) as (_, channel, _, _):
        message = request_headers()
        for header in message.request_headers.headers.headers:
            header.raw_value = {b":method": b"GET", b":path": b"/v1/responses/resp_1"}[header.key]
        message.request_headers.end_of_stream = True
        asked = asyncio.create_task(replies_to(channel, message))
        await until(lambda: asked.done() or told.asked)
        told.keepers = known
        (reply,) = await asked
        choice = reply.dynamic_metadata.fields[names.METADATA_NAMESPACE].struct_value.fields
        assert choice[names.DESTINATION].string_value == KEEPER
