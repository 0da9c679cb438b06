"""Requests that are held until their turn, at the gRPC port."""

from __future__ import annotations

import asyncio
import json
from types import MappingProxyType

import pytest
from test_extproc_server import CHAT, process, request_body, request_headers, running

from extproc_fakes import EngineRoom, FakeRouters
from lodestar_extproc.generated.lodestar.v1 import envoy_pb2 as pb
from lodestar_extproc.names import DESTINATION
from transports import each_transport
from waiting import until

pytestmark = pytest.mark.usefixtures(each_transport.__name__)


@pytest.fixture
def routers():
    return FakeRouters(engines=EngineRoom(has_room=False))


async def ask(channel, body: bytes = CHAT):
    """A stream whose request was read, and the reply that says how long Envoy is to wait."""
    call = process(channel)()
    for message in (request_headers(), request_body(body)):
        await call.write(message.SerializeToString())
    await call.read()
    return call, await call.read()


def destination(reply: pb.ProcessingResponse) -> str:
    headers = reply.request_body.response.header_mutation.set_headers
    return next(
        h.header.raw_value.decode() for h in headers if h.header.key == DESTINATION.encode()
    )


async def test_a_held_request_makes_envoy_wait_and_is_routed_when_there_is_room(routers):
    async with running(routers) as (_, channel, _, _):
        call, wait = await ask(channel)
        assert wait.override_message_timeout.ToMilliseconds() == pytest.approx(2500, abs=50)
        assert routers.n_decisions == 0
        routers.engines.let_in()
        assert destination(await call.read()).startswith(routers.addresses[0])
        assert 0 < routers.held_s[0] < 2
        assert not routers.admission.held


async def test_at_the_limit_it_goes_on(routers):
    async with running(routers) as (_, channel, _, _):
        call, _ = await ask(channel)
        assert destination(await call.read())
        assert routers.held_s[0] == pytest.approx(2, abs=1)


async def test_a_client_that_leaves_leaves_the_queue(routers):
    async with running(routers) as (_, channel, _, _):
        call, _ = await ask(channel)
        assert len(routers.admission.held) == 1
        call.cancel()
        await until(lambda: not routers.admission.held)
        assert routers.n_decisions == 0


@pytest.mark.parametrize("is_told", [True, False])
async def test_one_that_goes_on_from_what_nobody_is_known_to_keep_waits_to_be_told(is_told):
    routers = FakeRouters(owes=True)
    body = json.dumps({"model": "m", "previous_response_id": "resp_1", "messages": []})
    async with running(routers) as (_, channel, _, _):
        call, wait = await ask(channel, body.encode())
        assert wait.override_message_timeout.ToMilliseconds() == pytest.approx(750, abs=50)
        assert routers.n_decisions == 0
        if is_told:
            routers.keepers["resp_1"] = routers.addresses[0]
        assert destination(await call.read())
        assert (routers.held_s[0] < 0.2) == is_told
        assert routers.awaited.next_turn(1e9) is None


class CallOfNobody:
    """A call of which nothing is heard."""

    metadata = MappingProxyType({})

    def send(self, message):
        """Lost."""

    def end(self, status=None, text=""):
        """Of no interest."""


async def test_a_client_that_leaves_before_its_request_began_to_wait_leaves_the_queue(routers):
    async with running(routers) as (server, _, _, _):
        handler = server._process.open(CallOfNobody())
        handler.received(request_headers().SerializeToString())
        waiting = handler.received(request_body().SerializeToString())
        assert len(routers.admission.held) == 1
        waiting.close()
        handler.closed(0)
        assert not routers.admission.held


async def test_a_service_that_ends_lets_all_go(routers):
    async with running(routers) as (server, channel, _, _):
        calls = [(await ask(channel))[0] for _ in range(3)]
        stopping = asyncio.create_task(server.stop(5.0))
        for call in calls:
            assert destination(await call.read())
        await stopping
        assert max(routers.held_s) < 2


async def test_a_look_that_fails_keeps_nobody_beyond_the_limit(routers):
    def fail(_ticket, _at_s):
        raise RuntimeError("a bug")

    async with running(routers) as (_, channel, _, _):
        routers.admission._look = fail
        call, _ = await ask(channel)
        assert destination(await call.read())
        assert routers.held_s[0] == pytest.approx(2, abs=1)
