"""Long bodies in full duplex: all of it comes back, and nobody else waits for that."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from types import MappingProxyType

import pytest
from test_extproc_server import replies_to, request_headers, running

from lodestar_extproc.extproc.held_body import MAX_PART_BYTES, HeldBody
from lodestar_extproc.extproc.process_call import REPLIES_A_TURN
from lodestar_extproc.generated.lodestar.v1 import envoy_pb2 as pb
from transports import each_transport

PART_BYTES = 64 * 2**10
BOTH_WAYS = pb.ProtocolConfiguration(request_body_mode=4, response_body_mode=4)
WORDS = " ".join(map(str, range(700_000)))
CHAT = json.dumps({"model": "m", "messages": [{"role": "user", "content": WORDS}]}).encode()


def messages(
    body: bytes = CHAT, path: str = "/v1/chat/completions", *, trailers: bool = False
) -> list[pb.ProcessingRequest]:
    """As Envoy sends a request of that *body*, or one that *trailers* end."""
    headers = request_headers(protocol_config=BOTH_WAYS)
    headers.request_headers.headers.headers[1].raw_value = path.encode()
    starts = range(0, len(body), PART_BYTES)
    parts = [pb.HttpBody(body=body[at : at + PART_BYTES]) for at in starts]
    parts[-1].end_of_stream = not trailers
    bodies = [pb.ProcessingRequest(request_body=part) for part in parts]
    end = [pb.ProcessingRequest(request_trailers=pb.HttpTrailers())] if trailers else []
    return [headers, *bodies, *end]


def streamed(reply: pb.ProcessingResponse):
    return reply.request_body.response.body_mutation.streamed_response


class TurnsOfReplies:
    """A call that knows in which turn of the loop each reply was sent."""

    metadata = MappingProxyType({})

    def __init__(self):
        self.turn = 0
        self.sent: list[tuple[int, bytes]] = []

    def send(self, message):
        self.sent.append((self.turn, message))

    def end(self, status=None, text=""):
        """Of no interest."""

    async def count(self):
        while True:
            self.turn += 1
            await asyncio.sleep(0)


@pytest.mark.usefixtures(each_transport.__name__)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/upload"])
async def test_a_long_body_that_trailers_end_comes_back_whole_before_them(path):
    async with running() as (_, channel, routers, _):
        _, *parts, last = await replies_to(channel, *messages(path=path, trailers=True))

        assert b"".join(streamed(part).body for part in parts) == CHAT
        assert not any(streamed(part).end_of_stream for part in parts)
        assert last.WhichOneof("response") == "request_trailers"
        assert routers.n_decisions == 1


@pytest.mark.usefixtures(each_transport.__name__)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/upload"])
async def test_a_long_body_comes_back_whole_and_in_parts_that_envoy_takes(path):
    async with running() as (_, channel, routers, _):
        choice, *parts = await replies_to(channel, *messages(path=path))

        assert choice.WhichOneof("response") == "request_headers"
        assert b"".join(streamed(part).body for part in parts) == CHAT
        assert max(len(streamed(part).body) for part in parts) <= MAX_PART_BYTES
        assert [streamed(part).end_of_stream for part in parts] == [False] * 77 + [True]
        assert routers.n_decisions == 1


async def test_others_have_their_turn_while_a_long_body_goes_back():
    async with running() as (server, _, _, _):
        call = TurnsOfReplies()
        handler = server._process.open(call)
        *before, last = [message.SerializeToString() for message in messages()]
        for message in before:
            assert handler.received(message) is None
        counting = asyncio.create_task(call.count())
        await handler.received(last)
        counting.cancel()
        handler.closed(len(call.sent))

    in_a_turn = Counter(turn for turn, _ in call.sent)
    assert len(call.sent) == 79
    assert max(in_a_turn.values()) == REPLIES_A_TURN
    replies = [pb.ProcessingResponse.FromString(message) for _, message in call.sent]
    assert b"".join(streamed(reply).body for reply in replies[1:]) == CHAT


@pytest.mark.parametrize("sizes", [*itertools.product((0, 1, 40_000), repeat=3)])
def test_what_is_held_is_what_came(sizes):
    held, came = HeldBody(), b""
    for number, n_bytes in enumerate(sizes):
        part = bytes([65 + number]) * n_bytes
        held.add(part)
        came += part
        assert held.content() == came
        assert held.n_bytes == len(came)
    held.clear()
    assert held.content() == b""


def test_a_body_that_came_at_once_is_not_copied():
    held, body = HeldBody(), memoryview(CHAT)
    held.add(body)
    assert held.content() is body
