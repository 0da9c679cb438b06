"""Calls over HTTP/2, as services and clients see them: messages, ends, windows, deadlines, drains."""

from __future__ import annotations

import asyncio
import gzip
import zlib

import pytest

from http2_client import BROKEN, ECHO, ENDED, GREETED, LATE, Http2Client, message_of, messages_in
from lodestar_extproc.transport.calls import MAX_MESSAGE_BYTES
from lodestar_extproc.transport.http2.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    ErrorCode,
    FrameType,
    Http2Setting,
    frame,
    number,
    settings,
)
from lodestar_extproc.transport.http2.stream import MAX_UNSENT_BYTES, WINDOW_BYTES


@pytest.fixture
async def client():
    return Http2Client().greet()


async def turns(n: int = 5) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


def data_in(got) -> bytes:
    return b"".join(each.payload for each in got if each.kind == FrameType.DATA)


async def test_each_message_is_answered_and_the_end_says_ok(client):
    client.call(1)
    client.message(b"one")
    client.message(b"two")
    client.send(FrameType.DATA, END_STREAM, 1)
    assert client.answer() == ([b"one", b"two"], {"grpc-status": "0"})
    (call,) = client.service.calls
    assert (call.half_closes, call.closes) == (1, [2])


async def test_a_client_that_has_ended_is_not_told_to_send_no_more(client):
    client.call(1)
    client.message(b"one", 1, END_STREAM)
    assert not [each for each in client.got() if each.kind == FrameType.RST_STREAM]


async def test_a_client_that_has_not_ended_is_told_to_send_no_more(client):
    client.call(1, BROKEN)
    client.message(b"one")
    *_, last = client.got()
    assert (last.kind, last.number) == (FrameType.RST_STREAM, ErrorCode.NO_ERROR)


async def test_a_call_that_is_ended_as_it_begins_is_closed(client):
    client.call(1, ENDED)
    assert client.answer()[1]["grpc-status"] == "14"
    assert client.service.calls[0].closes == [0]


@pytest.mark.parametrize("half_closed", [0, END_STREAM])
async def test_what_is_said_to_a_client_that_had_left_by_then_is_told_as_not_sent(half_closed):
    """A loop that stood still finds a call, its message and its reset all at once."""
    client = Http2Client().greet()
    call = frame(FrameType.HEADERS, END_HEADERS, 1, client.block())
    message = frame(FrameType.DATA, half_closed, 1, message_of(b"one"))
    left = frame(FrameType.RST_STREAM, 0, 1, number(ErrorCode.CANCEL))
    client.connection.receive(call + message + left)
    assert client.service.calls[0].closes == [0]


async def test_what_had_left_before_the_client_did_was_sent(client):
    client.call(1)
    client.message(b"one")
    left = frame(FrameType.RST_STREAM, 0, 1, number(ErrorCode.CANCEL))
    client.connection.receive(frame(FrameType.DATA, 0, 1, message_of(b"two")) + left)
    assert client.service.calls[0].closes == [1]


async def test_messages_may_be_cut_anywhere(client):
    said = [b"", b"a", b"b" * 1000, b"", b"c" * 70_000]
    whole = b"".join(map(message_of, said))
    client.call(1)
    for at in range(0, len(whole), 997):
        client.send(FrameType.DATA, 0, 1, whole[at : at + 997])
    assert client.service.calls[0].messages == said


async def test_what_a_service_sends_first_comes_first(client):
    client.call(1, GREETED)
    client.message(b"a", 1, END_STREAM)
    assert client.answer() == ([b"hello", b"a"], {"grpc-status": "0"})


async def test_a_service_that_needs_time_gets_one_message_after_the_other(client):
    client.call(1, LATE)
    client.message(b"one")
    client.message(b"two", 1, END_STREAM)
    await turns()
    (call,) = client.service.calls
    assert (call.messages, call.half_closes) == ([b"one"], 0)
    client.service.gate.set()
    await turns()
    assert client.answer() == ([b"one", b"two"], {"grpc-status": "0"})
    assert (call.half_closes, call.closes) == (1, [2])


@pytest.mark.parametrize("how", ["reset", "gone"])
async def test_a_client_that_leaves_while_a_service_works_stops_the_work(client, how):
    client.call(1, LATE)
    client.message(b"one")
    await turns()
    if how == "reset":
        client.send(FrameType.RST_STREAM, 0, 1, number(ErrorCode.CANCEL))
    else:
        client.connection.lost()
    await turns()
    client.service.gate.set()
    await turns()
    (call,) = client.service.calls
    assert call.closes == [0]
    assert not client.answer()[0]


async def test_a_bug_of_a_service_costs_its_own_call(client):
    client.call(1, BROKEN)
    client.message(b"a")
    assert client.answer() == (
        [],
        {"grpc-status": "2", "grpc-message": "the service failed"} | HEAD,
    )
    assert [str(error) for error in client.failures] == ["a bug"]
    client.call(3)
    client.message(b"b", 3, END_STREAM)
    assert client.answer(3)[0] == [b"b"]


HEAD = {
    ":status": "200",
    "content-type": "application/grpc",
    "grpc-accept-encoding": "identity, deflate, gzip",
}
"""What stands in the only headers of an answer without a message."""


async def test_a_method_that_is_not_served_is_unimplemented(client):
    client.call(1, "/test/Nothing")
    _, trailers = client.answer()
    assert trailers["grpc-status"] == "12"
    assert trailers["grpc-message"] == "no method /test/Nothing here"


@pytest.mark.parametrize("kind", ["text/plain", "application/grpc-web", "application/grpcx", ""])
async def test_what_is_no_grpc_is_told_so(client, kind):
    block = client.block(ECHO, *[("content-type", kind)] * bool(kind), without=("content-type",))
    client.send(FrameType.HEADERS, END_HEADERS | END_STREAM, 1, block)
    got = client.got()
    assert dict(client.decoder.decode(got[-3].payload))[":status"] == "415"
    assert b"speaks gRPC" in data_in(got)
    assert not client.service.calls


@pytest.mark.parametrize("kind", ["application/grpc+proto", "application/grpc;charset=utf-8"])
async def test_other_spellings_of_grpc_are_served(client, kind):
    block = client.block(ECHO, ("content-type", kind), without=("content-type",))
    client.send(FrameType.HEADERS, END_HEADERS, 1, block)
    client.message(b"a", 1, END_STREAM)
    assert client.answer()[0] == [b"a"]


async def test_metadata_is_told_by_lower_names(client):
    client.call(1, ECHO, ("x-lodestar-pool", "pool"), ("x-umlaut", "für"))
    metadata = client.service.calls[0].call.metadata
    assert metadata["x-lodestar-pool"] == "pool"
    assert metadata["x-umlaut"] == "für"
    assert not any(name.startswith(":") for name in metadata)


# -- sizes and compression ------------------------------------------------------------------------


async def test_a_message_over_the_limit_is_refused_before_it_comes(client):
    client.call(1)
    client.send(FrameType.DATA, 0, 1, b"\0" + number(MAX_MESSAGE_BYTES + 1))
    _, trailers = client.answer()
    assert trailers["grpc-status"] == "8"
    assert "larger than max" in trailers["grpc-message"]


async def test_a_large_message_comes_whole_though_it_is_larger_than_the_window(client):
    said = bytes(5 * WINDOW_BYTES)
    client.call(1)
    whole, granted = message_of(said), WINDOW_BYTES
    for at in range(0, len(whole), 2**15):
        part = whole[at : at + 2**15]
        granted += sum(
            e.number for e in client.got() if e.kind == FrameType.WINDOW_UPDATE and e.stream_id
        )
        granted -= len(part)
        assert granted >= 0
        client.send(FrameType.DATA, 0, 1, part)
    assert client.service.calls[0].messages == [said]


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [("gzip", gzip.compress(b"hello" * 100, mtime=0)), ("deflate", zlib.compress(b"hello" * 100))],
)
async def test_what_grpcio_unpacks_is_unpacked(client, encoding, packed):
    client.call(1, ECHO, ("grpc-encoding", encoding))
    client.send(FrameType.DATA, 0, 1, message_of(packed, 1) + message_of(b"plain"))
    assert client.service.calls[0].messages == [b"hello" * 100, b"plain"]


@pytest.mark.parametrize(
    ("encoding", "packed", "status"),
    [
        ("identity", b"a", "13"),
        ("zstd", b"a", "12"),
        ("gzip", b"no gzip", "13"),
        ("gzip", gzip.compress(b"hello", mtime=0)[:-4], "13"),
        ("gzip", gzip.compress(bytes(MAX_MESSAGE_BYTES + 1), mtime=0), "8"),
    ],
)
async def test_a_packed_message_that_cannot_be_unpacked_ends_its_call(
    client, encoding, packed, status
):
    client.call(1, ECHO, ("grpc-encoding", encoding))
    client.send(FrameType.DATA, 0, 1, message_of(packed, 1))
    assert client.answer()[1]["grpc-status"] == status
    assert client.service.calls[0].closes == [0]


async def test_a_damaged_message_is_told_of_in_our_own_words(client):
    client.call(1, ECHO, ("grpc-encoding", "gzip"))
    client.send(FrameType.DATA, 0, 1, message_of(b"no gzip", 1))
    assert client.answer()[1]["grpc-message"] == "a message is not gzip, as its header says"


async def test_a_call_that_ends_in_a_message_is_told_so(client):
    client.call(1)
    client.send(FrameType.DATA, END_STREAM, 1, b"\0\0\0\0\x09abc")
    assert client.answer()[1]["grpc-status"] == "13"


# -- windows --------------------------------------------------------------------------------------


async def test_answers_wait_for_the_windows_of_stream_and_connection():
    client = Http2Client().greet(settings={Http2Setting.INITIAL_WINDOW_SIZE: 10})
    client.call(1)
    client.message(b"x" * 95, 1, END_STREAM)
    assert len(data_in(client.got())) == 10
    client.connection.receive(settings({Http2Setting.INITIAL_WINDOW_SIZE: 30}))
    assert len(data_in(client.got())) == 20
    client.send(FrameType.WINDOW_UPDATE, 0, 1, number(1000))
    got = client.got()
    assert len(data_in(got)) == 70
    assert got[-1].flags & END_STREAM
    assert client.service.calls[0].closes == [1]


async def test_a_window_may_shrink_below_nothing():
    client = Http2Client().greet(settings={Http2Setting.INITIAL_WINDOW_SIZE: 50})
    client.call(1)
    client.message(b"x" * 95)
    assert len(data_in(client.got())) == 50
    client.connection.receive(settings({Http2Setting.INITIAL_WINDOW_SIZE: 10}))
    client.send(FrameType.WINDOW_UPDATE, 0, 1, number(45))
    assert len(data_in(client.got())) == 5


async def test_all_streams_share_the_window_of_the_connection(client):
    client.connection.receive(settings({Http2Setting.INITIAL_WINDOW_SIZE: 2**20}))
    for stream_id in (1, 3):
        client.call(stream_id)
        client.message(b"x" * 60_000, stream_id, END_STREAM)
    assert len(data_in(client.got())) == 65_535
    client.send(FrameType.WINDOW_UPDATE, 0, 0, number(2**20))
    assert len(data_in(client.got())) == 120_010 - 65_535
    assert [call.closes for call in client.service.calls] == [[1], [1]]


@pytest.mark.parametrize("most", [2**14, 40_000])
async def test_a_frame_is_as_large_as_the_client_takes(client, most):
    client.connection.receive(settings({Http2Setting.MAX_FRAME_SIZE: most}))
    client.call(1)
    client.message(b"x" * 50_000)
    sizes = [len(each.payload) for each in client.got() if each.kind == FrameType.DATA]
    assert max(sizes) == most
    assert sum(sizes) == 50_005


async def test_who_takes_no_answers_is_not_heard_on(client):
    client.connection.receive(settings({Http2Setting.INITIAL_WINDOW_SIZE: 0}))
    client.call(1)
    part = message_of(bytes(2**16))
    for _ in range(2 * MAX_UNSENT_BYTES // len(part)):
        client.send(FrameType.DATA, 0, 1, part)
        if client.is_closed or client.reset():
            break
    (call,) = client.service.calls
    assert sum(map(len, call.messages)) <= MAX_UNSENT_BYTES + 2**17


async def test_who_takes_answers_again_is_heard_again(client):
    client.connection.receive(settings({Http2Setting.INITIAL_WINDOW_SIZE: 0}))
    client.call(1)
    said = [bytes((i,)) * 2**16 for i in range(20)]
    for message in said:
        client.message(message)
    client.got()
    client.send(FrameType.WINDOW_UPDATE, 0, 0, number(2**24))
    client.send(FrameType.WINDOW_UPDATE, 0, 1, number(2**24))
    assert messages_in(data_in(client.got())) == said


async def test_what_waits_for_a_window_is_told_as_not_sent(client):
    client.connection.receive(settings({Http2Setting.INITIAL_WINDOW_SIZE: 12}))
    client.call(1)
    client.message(b"seven..")
    client.message(b"waits")
    client.send(FrameType.RST_STREAM, 0, 1, number(ErrorCode.CANCEL))
    assert client.service.calls[0].closes == [1]


# -- deadlines and drains -------------------------------------------------------------------------


async def test_a_call_ends_at_the_time_that_its_client_set(client):
    client.call(1, ECHO, ("grpc-timeout", "250m"))
    ((after_s, call),) = client.timers
    assert after_s == 0.25
    call()
    assert client.answer()[1]["grpc-status"] == "4"
    assert client.service.calls[0].closes == [0]


@pytest.mark.parametrize("text", ["", "1", "s1", "123456789S", "1x", "-1S"])
async def test_a_time_that_is_none_sets_none(client, text):
    client.call(1, ECHO, ("grpc-timeout", text))
    assert not client.timers


async def test_a_drain_serves_what_is_on_its_way_and_then_closes(client):
    client.call(1)
    client.got()
    client.connection.drain()
    goaway, ping = client.got()
    assert (goaway.kind, goaway.number) == (FrameType.GOAWAY, ErrorCode.NO_ERROR)
    assert int.from_bytes(goaway.payload[:4], "big") == 2**31 - 1
    client.call(3)  # it had left before the client knew
    client.send(FrameType.PING, ACK, 0, ping.payload)
    (last,) = client.got()
    assert int.from_bytes(last.payload[:4], "big") == 3
    client.call(5)  # it knew
    for stream_id in (1, 3):
        assert not client.is_closed
        client.message(b"a", stream_id, END_STREAM)
    assert client.is_closed
    assert [call.closes for call in client.service.calls] == [[1], [1]]


async def test_an_end_cuts_what_is_open(client):
    client.call(1, LATE)
    client.message(b"a")
    await turns()
    client.connection.close()
    await turns()
    assert client.fault() is ErrorCode.NO_ERROR
    assert client.service.calls[0].closes == [0]
    client.call(3)
    assert len(client.service.calls) == 1
