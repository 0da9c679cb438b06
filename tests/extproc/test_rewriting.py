"""A body that asks the engine for another model, in each manner in which Envoy may talk."""

import dataclasses

import pytest

from extproc_fakes import FakeRouters
from lodestar_extproc.config.mapped import ModelRewrites
from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.extproc.events import (
    BodyMode,
    Opening,
    RequestBody,
    RequestHeaders,
    RouteTo,
)
from lodestar_extproc.extproc.exchange import Exchange

BODY = b'{ "model": "chat", "messages": [], "temperature": 1.0 }'
CHANGED = BODY.replace(b"chat", b"llama")
SETTINGS = PoolSettings(
    model_rewrites=ModelRewrites.read({"chat": "llama"}), trusted_headers=("model_rewrite",)
)
BUFFERED, FULL_DUPLEX = BodyMode.BUFFERED, BodyMode.FULL_DUPLEX_STREAMED


def sent_on(mode, body=BODY, settings=SETTINGS, **headers):
    """The routed request, and the bytes that reach the engine."""
    routers = FakeRouters(settings=settings)
    exchange = Exchange(routers, Opening(request_body_mode=mode))
    given = {":method": "POST", ":path": "/v1/chat/completions"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    exchange.receive(RequestHeaders(at_s=0.0, headers=given))
    choice, *parts = exchange.receive(RequestBody(at_s=0.1, body=body, end_of_stream=True))
    assert isinstance(choice, RouteTo)
    if mode is FULL_DUPLEX:
        assert choice.body is None
        return routers.routed[0], b"".join(part.body for part in parts)
    return routers.routed[0], body if choice.body is None else choice.body


@pytest.mark.parametrize("mode", [BUFFERED, BodyMode.BUFFERED_PARTIAL, FULL_DUPLEX])
def test_a_rewritten_model_is_what_the_engine_is_asked_for_and_hashed_for(mode):
    request, body = sent_on(mode)
    assert body == CHANGED
    assert (request.model, request.named_model) == ("llama", "chat")


@pytest.mark.parametrize("mode", [BUFFERED, FULL_DUPLEX])
@pytest.mark.parametrize("name", ["x_llm_d_model_name_rewrite", "x_gateway_model_name_rewrite"])
def test_a_gateways_header_comes_before_the_setting(mode, name):
    request, body = sent_on(mode, **{name: "tuned"})
    assert body == BODY.replace(b"chat", b"tuned")
    assert request.model == "tuned"


@pytest.mark.parametrize("mode", [BUFFERED, FULL_DUPLEX])
@pytest.mark.parametrize("body", [CHANGED, b"{", b"[]", b'{"n": 1}'])
def test_what_needs_no_other_model_stays_as_it_is(mode, body):
    assert sent_on(mode, body)[1] is body


@pytest.mark.parametrize("mode", [BUFFERED, FULL_DUPLEX])
def test_in_strict_mode_too_a_model_is_rewritten(mode):
    strict = dataclasses.replace(SETTINGS, strict=True)
    assert sent_on(mode, settings=strict)[1] == CHANGED


def test_what_has_gone_on_already_is_not_rewritten():
    request, _ = sent_on(BodyMode.STREAMED)
    assert (request.model, request.named_model) == ("chat", None)
