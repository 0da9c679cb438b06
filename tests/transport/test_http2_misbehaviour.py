"""What clients do wrong on HTTP/2, frame by frame, and what it ends: a stream, the connection."""

from __future__ import annotations

import pytest

from http2_client import ECHO, Http2Client, message_of
from lodestar_extproc.transport.http2.floods import EMPTY_BURST, RESET_BURST
from lodestar_extproc.transport.http2.frame_reader import MAX_CONTINUATIONS, MAX_FRAME_BYTES
from lodestar_extproc.transport.http2.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    HAS_PRIORITY,
    PADDED,
    PREFACE,
    ErrorCode,
    FrameType,
    Http2Setting,
    frame,
    number,
    settings,
)
from lodestar_extproc.transport.http2.greeting import CONNECTION_WINDOW_BYTES
from lodestar_extproc.transport.http2.header_blocks import MAX_BLOCK_BYTES
from lodestar_extproc.transport.http2.stream import WINDOW_BYTES


@pytest.fixture
async def client():
    return Http2Client().greet()


def is_alive(client: Http2Client) -> bool:
    """Whether the connection still serves a call."""
    client.got()
    stream_id = client.connection._streams.last_id + 2
    client.call(stream_id | 1)
    client.message(b"still there", stream_id | 1, END_STREAM)
    messages, trailers = client.answer(stream_id | 1)
    return messages == [b"still there"] and trailers == {"grpc-status": "0"}


# -- the beginning --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "begun",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"\0",
    ],
)
async def test_what_is_no_http2_is_told_so_and_left(begun):
    client = Http2Client()
    client.connection.receive(begun)
    assert client.fault() is ErrorCode.PROTOCOL_ERROR


async def test_a_preface_may_come_byte_by_byte():
    client = Http2Client()
    for byte in PREFACE + settings({}):
        client.connection.receive(bytes((byte,)))
    assert client.connection.is_settled
    assert is_alive(client)


@pytest.mark.parametrize(
    "first",
    [
        frame(FrameType.PING, 0, 0, bytes(8)),
        frame(FrameType.SETTINGS, ACK, 0),
        frame(FrameType.DATA, 0, 1, b"x"),
        frame(FrameType.HEADERS, END_HEADERS, 1, b"\x82"),
    ],
)
async def test_the_first_frame_has_to_set(first):
    client = Http2Client()
    client.connection.receive(PREFACE + first)
    assert client.fault() is ErrorCode.PROTOCOL_ERROR


# -- frames that cannot be ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "flags", "stream_id", "payload", "code"),
    [
        (FrameType.DATA, 0, 0, b"x", ErrorCode.PROTOCOL_ERROR),
        (FrameType.DATA, PADDED, 1, b"\x05abcd", ErrorCode.PROTOCOL_ERROR),
        (FrameType.DATA, PADDED, 1, b"", ErrorCode.FRAME_SIZE_ERROR),
        (FrameType.DATA, 0, 2, b"x", ErrorCode.PROTOCOL_ERROR),
        (FrameType.DATA, 0, 99, b"x", ErrorCode.PROTOCOL_ERROR),
        (FrameType.HEADERS, END_HEADERS, 0, b"\x82", ErrorCode.PROTOCOL_ERROR),
        (FrameType.HEADERS, END_HEADERS, 2, b"\x82", ErrorCode.PROTOCOL_ERROR),
        (FrameType.HEADERS, END_HEADERS | PADDED, 3, b"\x09\x82", ErrorCode.PROTOCOL_ERROR),
        (FrameType.HEADERS, END_HEADERS | HAS_PRIORITY, 3, b"\0\0", ErrorCode.FRAME_SIZE_ERROR),
        (
            FrameType.HEADERS,
            END_HEADERS | HAS_PRIORITY,
            3,
            b"\0\0\0\x03\x10\x82",
            ErrorCode.PROTOCOL_ERROR,
        ),
        (FrameType.HEADERS, END_HEADERS, 3, b"\xff\xff\xff\xff\x7f", ErrorCode.COMPRESSION_ERROR),
        (FrameType.HEADERS, END_HEADERS, 3, b"\x40", ErrorCode.COMPRESSION_ERROR),
        (FrameType.HEADERS, END_HEADERS, 3, b"\x80", ErrorCode.COMPRESSION_ERROR),
        (FrameType.CONTINUATION, END_HEADERS, 1, b"\x82", ErrorCode.PROTOCOL_ERROR),
        (FrameType.PRIORITY, 0, 0, b"\0\0\0\0\0", ErrorCode.PROTOCOL_ERROR),
        (FrameType.PRIORITY, 0, 3, b"\0\0\0", ErrorCode.FRAME_SIZE_ERROR),
        (FrameType.PRIORITY, 0, 3, b"\0\0\0\x03\0", ErrorCode.PROTOCOL_ERROR),
        (FrameType.RST_STREAM, 0, 0, bytes(4), ErrorCode.PROTOCOL_ERROR),
        (FrameType.RST_STREAM, 0, 1, bytes(3), ErrorCode.FRAME_SIZE_ERROR),
        (FrameType.RST_STREAM, 0, 7, bytes(4), ErrorCode.PROTOCOL_ERROR),
        (FrameType.SETTINGS, 0, 1, b"", ErrorCode.PROTOCOL_ERROR),
        (FrameType.SETTINGS, 0, 0, bytes(5), ErrorCode.FRAME_SIZE_ERROR),
        (FrameType.SETTINGS, ACK, 0, bytes(6), ErrorCode.FRAME_SIZE_ERROR),
        (FrameType.PUSH_PROMISE, END_HEADERS, 1, bytes(4), ErrorCode.PROTOCOL_ERROR),
        (FrameType.PING, 0, 1, bytes(8), ErrorCode.PROTOCOL_ERROR),
        (FrameType.PING, 0, 0, bytes(7), ErrorCode.FRAME_SIZE_ERROR),
        (FrameType.GOAWAY, 0, 1, bytes(8), ErrorCode.PROTOCOL_ERROR),
        (FrameType.GOAWAY, 0, 0, bytes(4), ErrorCode.FRAME_SIZE_ERROR),
        (FrameType.WINDOW_UPDATE, 0, 0, bytes(4), ErrorCode.PROTOCOL_ERROR),
        (FrameType.WINDOW_UPDATE, 0, 0, bytes(3), ErrorCode.FRAME_SIZE_ERROR),
        (FrameType.WINDOW_UPDATE, 0, 9, number(1), ErrorCode.PROTOCOL_ERROR),
    ],
)
async def test_a_frame_that_cannot_be_ends_the_connection(
    client, kind, flags, stream_id, payload, code
):
    client.call(1)
    client.send(kind, flags, stream_id, payload)
    assert client.fault() is code
    assert [call.closes for call in client.service.calls] == [[0]]


async def test_a_frame_that_is_too_long_is_refused_by_its_length_alone(client):
    n_bytes = MAX_FRAME_BYTES + 1
    client.connection.receive(n_bytes.to_bytes(3, "big") + b"\0\0\0\0\0\x01")
    assert client.fault() is ErrorCode.FRAME_SIZE_ERROR


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        (Http2Setting.ENABLE_PUSH, 2, ErrorCode.PROTOCOL_ERROR),
        (Http2Setting.INITIAL_WINDOW_SIZE, 2**31, ErrorCode.FLOW_CONTROL_ERROR),
        (Http2Setting.MAX_FRAME_SIZE, 2**14 - 1, ErrorCode.PROTOCOL_ERROR),
        (Http2Setting.MAX_FRAME_SIZE, 2**24, ErrorCode.PROTOCOL_ERROR),
    ],
)
async def test_a_setting_that_cannot_be_ends_the_connection(client, name, value, code):
    client.connection.receive(settings({name: value}))
    assert client.fault() is code


@pytest.mark.parametrize("kind", [10, 0x42, 0xFF])
async def test_frames_of_unknown_kinds_are_ignored(client, kind):
    client.connection.receive(frame(kind, 0xFF, 77, b"whatever"))
    assert is_alive(client)


async def test_padding_and_priority_are_no_part_of_a_call(client):
    block = client.block()
    head = b"\x03" + b"\x80\0\0\x0b\x10" + block + bytes(3)
    client.send(FrameType.HEADERS, END_HEADERS | PADDED | HAS_PRIORITY, 1, head)
    data = message_of(b"padded")
    client.send(FrameType.DATA, PADDED | END_STREAM, 1, b"\xff" + data + bytes(255))
    assert client.answer() == ([b"padded"], {"grpc-status": "0"})
    client.send(FrameType.PRIORITY, 0, 5, b"\0\0\0\x01\x10")
    assert is_alive(client)


# -- header blocks --------------------------------------------------------------------------------


async def test_headers_may_come_in_pieces(client):
    block = client.block()
    client.send(FrameType.HEADERS, 0, 1, block[:3])
    client.send(FrameType.CONTINUATION, 0, 1, block[3:3])
    client.send(FrameType.CONTINUATION, END_HEADERS, 1, block[3:])
    client.message(b"a", 1, END_STREAM)
    assert client.answer() == ([b"a"], {"grpc-status": "0"})


@pytest.mark.parametrize(
    "between",
    [
        frame(FrameType.PING, 0, 0, bytes(8)),
        frame(FrameType.DATA, 0, 1, b""),
        frame(FrameType.CONTINUATION, END_HEADERS, 3, b""),
        frame(0x42, 0, 1, b""),
    ],
)
async def test_nothing_may_come_between_the_pieces(client, between):
    client.send(FrameType.HEADERS, 0, 1, client.block())
    client.connection.receive(between)
    assert client.fault() is ErrorCode.PROTOCOL_ERROR


async def test_a_flood_of_continuations_ends_the_connection(client):
    client.send(FrameType.HEADERS, 0, 1, client.block())
    for _ in range(MAX_CONTINUATIONS + 1):
        client.send(FrameType.CONTINUATION, 0, 1)
    assert client.fault() is ErrorCode.ENHANCE_YOUR_CALM


async def test_headers_that_are_too_long_end_the_connection(client):
    client.call(1, ECHO, ("x-long", "~" * 2 * MAX_BLOCK_BYTES))
    assert client.fault() is ErrorCode.ENHANCE_YOUR_CALM


async def test_a_small_block_that_unpacks_to_much_ends_the_connection(client):
    client.call(1, ECHO, ("x-large", "a" * 3000))
    client.got()
    named_again = bytes((0x80 | 62,)) * 1000
    client.send(FrameType.HEADERS, END_HEADERS, 3, client.block() + named_again)
    assert client.fault() is ErrorCode.COMPRESSION_ERROR


@pytest.mark.parametrize("n_right", [0, 1, 3, 12, len(PREFACE) - 1])
@pytest.mark.parametrize("n_together", [1, 2, 5, len(PREFACE)])
async def test_a_wrong_preface_is_known_by_its_first_wrong_byte_however_it_comes(
    n_right, n_together
):
    client, wrong = Http2Client(), PREFACE[:n_right] + b"\x01"
    for start in range(0, len(wrong), n_together):
        client.connection.receive(wrong[start : start + n_together])
    assert client.fault() is ErrorCode.PROTOCOL_ERROR


@pytest.mark.parametrize(
    "block",
    [
        b"\xff" * 5 + b"\x7f",
        b"\x83\x86" + b"\xff" * 8,
        b"\x1f" + b"\xff" * 12,
        b"\x40\x8f",
        b"\xfe",
    ],
)
async def test_a_client_is_not_told_where_anything_lies_in_memory(client, block):
    client.call(1)
    client.got()
    client.send(FrameType.HEADERS, END_HEADERS, 3, block)

    (farewell,) = [each.payload for each in client.got() if each.kind == FrameType.GOAWAY]
    assert farewell[8:].startswith(b"headers cannot be unpacked: ")
    assert b"0x" not in farewell
    assert b"object" not in farewell


@pytest.mark.parametrize(
    "field",
    [
        ("X-Upper", "a"),
        ("", "a"),
        ("a b", "a"),
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("te", "gzip"),
        (":path", "/again"),
        (":unknown", "a"),
        ("x-line", "a\r\nb"),
        ("x-null", "a\0b"),
        ("x-space", " a"),
        ("content-length", "many"),
    ],
)
async def test_a_malformed_request_ends_its_stream_alone(client, field):
    client.call(1, ECHO, field)
    assert client.reset() is ErrorCode.PROTOCOL_ERROR
    assert not client.service.calls
    assert is_alive(client)


@pytest.mark.parametrize("missing", [":method", ":scheme", ":path"])
async def test_a_request_without_what_it_needs_ends_its_stream_alone(client, missing):
    client.send(FrameType.HEADERS, END_HEADERS, 1, client.block(without=(missing,)))
    assert client.reset() is ErrorCode.PROTOCOL_ERROR
    assert is_alive(client)


async def test_the_same_bytes_mean_something_else_once_the_table_has_changed(client):
    """What was read before is remembered: not beyond a change of what it refers to."""
    client.call(1, ECHO, ("x-who", "a"))
    named = client.block(ECHO, ("x-who", "a"))
    client.send(FrameType.HEADERS, END_HEADERS, 3, named)
    client.send(FrameType.HEADERS, END_HEADERS, 5, named)
    # Another entry moves those before it by one: `named` names others, and some of them twice.
    client.call(7, ECHO, ("x-who", "b"))
    client.got()
    client.send(FrameType.HEADERS, END_HEADERS, 9, named)
    assert client.reset() is ErrorCode.PROTOCOL_ERROR
    who = [call.call.metadata.get("x-who") for call in client.service.calls]
    assert who == ["a", "a", "a", "b"]


# -- streams in states ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [FrameType.DATA, FrameType.HEADERS])
async def test_nothing_may_follow_the_end_of_a_stream(client, kind):
    client.call(1, "/test/Late")
    client.message(b"a", 1, END_STREAM)
    client.got()
    if kind is FrameType.DATA:
        client.message(b"b", 1)
    else:
        client.call(1, "/test/Late", flags=END_STREAM)
    assert client.reset() is ErrorCode.STREAM_CLOSED
    assert is_alive(client)


async def test_data_on_a_stream_that_is_over_for_both_is_refused(client):
    client.call(1)
    client.message(b"a", 1, END_STREAM)
    client.got()
    client.message(b"b", 1)
    assert client.reset() is ErrorCode.STREAM_CLOSED


async def test_headers_on_a_stream_that_is_over_for_both_end_the_connection(client):
    client.call(1)
    client.message(b"a", 1, END_STREAM)
    client.got()
    client.call(1)
    assert client.fault() is ErrorCode.STREAM_CLOSED


async def test_what_is_on_its_way_to_a_stream_that_we_ended_is_no_fault(client):
    client.call(1, "/test/Unknown")
    assert client.answer()[1]["grpc-status"] == "12"
    client.message(b"on its way", 1)
    client.send(FrameType.WINDOW_UPDATE, 0, 1, number(5))
    client.call(1, "/test/Unknown", flags=END_STREAM)
    assert not client.got()
    assert is_alive(client)


async def test_second_headers_have_to_end_the_stream(client):
    client.call(1)
    client.call(1)
    assert client.reset() is ErrorCode.PROTOCOL_ERROR
    assert client.service.calls[0].closes == [0]


async def test_trailers_end_a_request(client):
    client.call(1)
    client.message(b"a")
    trailers = client.encoder.encode([("x-end", "1")])
    client.send(FrameType.HEADERS, END_HEADERS | END_STREAM, 1, trailers)
    assert client.answer() == ([b"a"], {"grpc-status": "0"})


@pytest.mark.parametrize("announced", [3, 7, 100])
async def test_a_body_of_another_length_than_announced_ends_its_stream(client, announced):
    client.call(1, ECHO, ("content-length", str(announced)))
    client.message(b"a", 1, END_STREAM)  # 6 bytes
    assert client.reset() is ErrorCode.PROTOCOL_ERROR
    assert is_alive(client)


async def test_a_number_of_a_stream_may_only_grow(client):
    client.call(5)
    client.got()
    client.call(3)
    assert client.fault() is ErrorCode.STREAM_CLOSED


# -- flow -----------------------------------------------------------------------------------------


async def test_more_data_than_a_stream_may_send_ends_the_stream(client):
    client.call(1, "/test/Late")
    client.message(b"held back", 1)
    # Its service is busy, so that nothing is granted again.
    for _ in range(1 + WINDOW_BYTES // 2**16):
        client.send(FrameType.DATA, 0, 1, bytes(2**16))
    assert client.reset() is ErrorCode.FLOW_CONTROL_ERROR
    assert is_alive(client)


async def test_more_data_than_a_connection_may_send_ends_it(client, monkeypatch):
    monkeypatch.setattr(client.connection._window, "_n_bytes", 4 * CONNECTION_WINDOW_BYTES)
    client.call(1, "/test/Unknown")
    for _ in range(1 + CONNECTION_WINDOW_BYTES // MAX_FRAME_BYTES):
        client.send(FrameType.DATA, 0, 1, bytes(MAX_FRAME_BYTES))
    assert client.fault() is ErrorCode.FLOW_CONTROL_ERROR


async def test_a_window_that_has_no_number_ends_what_it_is_of(client):
    client.call(1)
    client.send(FrameType.WINDOW_UPDATE, 0, 1, number(2**31 - 1))
    assert client.reset() is ErrorCode.FLOW_CONTROL_ERROR
    client.send(FrameType.WINDOW_UPDATE, 0, 0, number(2**31 - 1))
    assert client.fault() is ErrorCode.FLOW_CONTROL_ERROR


async def test_a_window_of_nothing_ends_its_stream(client):
    client.call(1)
    client.send(FrameType.WINDOW_UPDATE, 0, 1, number(0))
    assert client.reset() is ErrorCode.PROTOCOL_ERROR
    assert is_alive(client)


# -- floods ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "empty",
    [
        frame(FrameType.PING, 0, 0, bytes(8)),
        frame(FrameType.PING, ACK, 0, bytes(8)),
        settings({}),
        settings({Http2Setting.INITIAL_WINDOW_SIZE: 70_000}),
        frame(FrameType.SETTINGS, ACK, 0),
        frame(FrameType.PRIORITY, 0, 3, b"\0\0\0\0\0"),
        frame(FrameType.DATA, 0, 1),
        frame(FrameType.GOAWAY, 0, 0, bytes(8)),
        frame(0x42, 0, 0),
    ],
)
async def test_a_flood_of_frames_that_bring_nothing_ends_the_connection(client, empty):
    client.call(1, "/test/Late")
    client.connection.receive(empty * (EMPTY_BURST // 2))
    assert not client.is_closed
    client.connection.receive(empty * EMPTY_BURST)
    assert client.fault() is ErrorCode.ENHANCE_YOUR_CALM


async def test_pings_at_the_pace_of_a_mesh_are_answered_for_ever(client):
    for _ in range(10):
        client.connection.receive(frame(FrameType.PING, 0, 0, b"12345678") * (EMPTY_BURST // 2))
        client.now_s += 10.0
        acks = [each for each in client.got() if each.kind == FrameType.PING]
        assert len(acks) == EMPTY_BURST // 2
        assert {each.payload for each in acks} == {b"12345678"}
    assert is_alive(client)


async def test_a_ping_with_every_answer_is_no_flood(client):
    """As gRPC's client for Go does to learn how much may be on its way."""
    ping = frame(FrameType.PING, 0, 0, bytes(8))
    for i in range(3 * EMPTY_BURST):
        client.call(2 * i + 1)
        client.message(b"a", 2 * i + 1, END_STREAM)
        client.connection.receive(ping)
        acks = [each for each in client.got() if each.kind == FrameType.PING]
        assert len(acks) == 1
    client.connection.receive(ping * (EMPTY_BURST + 1))
    assert client.fault() is ErrorCode.ENHANCE_YOUR_CALM


async def test_rapid_resets_end_the_connection(client):
    client.call(1)
    block = client.block()
    for i in range(RESET_BURST + 2):
        client.send(FrameType.HEADERS, END_HEADERS, 2 * i + 3, block)
        client.send(FrameType.RST_STREAM, 0, 2 * i + 3, number(ErrorCode.CANCEL))
    assert client.fault() is ErrorCode.ENHANCE_YOUR_CALM
    assert all(call.closes == [0] for call in client.service.calls)


async def test_resets_that_a_client_makes_us_send_end_the_connection(client):
    for i in range(RESET_BURST + 2):
        client.call(2 * i + 1)
        client.send(FrameType.WINDOW_UPDATE, 0, 2 * i + 1, number(0))
    assert client.fault() is ErrorCode.ENHANCE_YOUR_CALM


async def test_an_envoy_whose_clients_all_give_up_is_no_flood(client):
    """It sends the message with the headers, and resets once its patience is over."""
    for i in range(3 * RESET_BURST):
        client.call(2 * i + 1, "/test/Late")
        client.message(b"a", 2 * i + 1)
        client.send(FrameType.RST_STREAM, 0, 2 * i + 1, number(ErrorCode.CANCEL))
    assert is_alive(client)


async def test_more_streams_than_are_allowed_are_refused(client, monkeypatch):
    monkeypatch.setattr("lodestar_extproc.transport.http2.streams.MAX_CONCURRENT_STREAMS", 3)
    for stream_id in (1, 3, 5, 7):
        client.call(stream_id)
    assert client.reset() is ErrorCode.REFUSED_STREAM
    assert len(client.service.calls) == 3
    client.message(b"a", 1, END_STREAM)
    assert is_alive(client)
