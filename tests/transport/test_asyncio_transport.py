"""The asyncio transport on real sockets: addresses, encryption, who says nothing, who reads nothing."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
from contextlib import asynccontextmanager

import grpc
import pytest

from collector import n_alive, only_when_told
from http2_client import ECHO, LATE, EchoService, message_of
from lodestar_extproc.server_tls import ServerTls
from lodestar_extproc.transport import asyncio_transport, http2_protocol
from lodestar_extproc.transport.asyncio_transport import AsyncioTransport
from lodestar_extproc.transport.calls import ListenError
from lodestar_extproc.transport.choice import TRANSPORTS, new_transport
from lodestar_extproc.transport.http2.frames import PREFACE, FrameType, frame, settings
from lodestar_extproc.transport.http2.stream import Http2Call
from lodestar_extproc.transport.http2_protocol import TURN_BYTES, Http2Protocol
from waiting import until


@asynccontextmanager
async def listening(*addresses: str, tls: ServerTls | None = None):
    transport, service = AsyncioTransport(), EchoService()
    ports = await transport.listen(addresses, service.services, tls)
    try:
        yield ports, service, transport
    finally:
        await transport.stop(0.0)


async def echoed(target: str) -> bytes:
    async with grpc.aio.insecure_channel(target) as channel:
        call = channel.stream_stream(ECHO)()
        await call.write(b"hello")
        answer = await call.read()
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        return answer


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("127.0.0.1:0", "127.0.0.1"),
        ("localhost:0", "localhost"),
        ("0.0.0.0:0", "127.0.0.1"),
        ("[::]:0", "127.0.0.1"),
        (":0", "127.0.0.1"),
        pytest.param(
            "[::1]:0",
            "[::1]",
            marks=pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here"),
        ),
    ],
)
async def test_what_grpcio_listens_on_is_listened_on(address, target):
    async with listening(address) as ((port,), _, _):
        assert await echoed(f"{target}:{port}") == b"hello"


async def test_a_socket_that_an_earlier_process_left_is_replaced_and_taken_away(tmp_path):
    path = tmp_path / "extproc.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with listening(f"unix:{path}") as (ports, _, _):
        assert ports == (0,)
        assert await echoed(f"unix:{path}") == b"hello"
    assert not path.exists()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_file_that_is_no_socket_stays(tmp_path, transport):
    path = tmp_path / "kept"
    path.write_text("mine")
    with pytest.raises(ListenError):
        await new_transport(transport).listen([f"unix:{path}"], {})
    assert path.read_text() == "mine"


async def test_where_one_address_is_taken_none_is_listened_on():
    async with listening("127.0.0.1:0") as ((taken,), _, _):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with pytest.raises(ListenError, match=f"127.0.0.1:{taken}; is it in use"):
            await AsyncioTransport().listen([f"127.0.0.1:{port}", f"127.0.0.1:{taken}"], {})
        with socket.create_server(("127.0.0.1", port)):
            pass


@pytest.mark.parametrize("name", TRANSPORTS)
async def test_processes_share_a_port_where_each_says_so_and_no_other(name):
    first, second, third = (new_transport(name) for _ in range(3))
    try:
        (port,) = await first.listen(["127.0.0.1:0"], EchoService().services, shared=True)
        at = f"127.0.0.1:{port}"
        assert await second.listen([at], EchoService().services, shared=True) == (port,)
        assert await echoed(at) == b"hello"
        with pytest.raises(ListenError):
            await third.listen([at], EchoService().services)
    finally:
        for transport in (first, second, third):
            await transport.stop(0.0)


@pytest.mark.parametrize("shared", [True, False])
async def test_a_connection_to_a_shared_port_is_let_go_in_time_and_no_other(monkeypatch, shared):
    monkeypatch.setattr(asyncio_transport, "SHARED_AGE_S", 0.05)
    transport, service = AsyncioTransport(), EchoService()
    (port,) = await transport.listen(["127.0.0.1:0"], service.services, shared=shared)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.stream_stream(ECHO)()
            await call.write(b"hello")
            assert await call.read() == b"hello"
            (protocol,) = transport._open
            if not shared:
                assert protocol._max_age_s is None
                return
            await until(lambda: protocol.connection._is_draining)
            await call.write(b"again")  # the stream is not cut
            assert await call.read() == b"again"
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
            await until(lambda: not transport._open)
    finally:
        await transport.stop(0.0)


async def test_who_says_nothing_is_left(monkeypatch):
    monkeypatch.setattr(http2_protocol, "GREETING_S", 0.05)
    async with listening("127.0.0.1:0") as ((port,), _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(PREFACE[:5])
        async with asyncio.timeout(30):
            while await reader.read(1000):
                pass
        writer.close()


async def test_who_does_not_ask_for_http2_as_it_encrypts_is_left():
    async with listening("127.0.0.1:0", tls=ServerTls()) as ((port,), _, _):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        async with asyncio.timeout(30):
            assert await reader.read(1000) == b""
        writer.close()


async def test_who_reads_nothing_is_not_read():
    """Answers to pings pile up nowhere: at a point the client cannot send more of them."""
    async with listening("127.0.0.1:0") as ((port,), _, transport):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(client, PREFACE + settings({}))
            await until(lambda: len(transport._open) == 1)
            (protocol,) = transport._open
            pushing = asyncio.create_task(push(client))
            await until(lambda: protocol._is_choked)
            assert not protocol._transport.is_reading()
            assert not pushing.done()
            assert protocol._transport.get_write_buffer_size() < 2**21
            pushing.cancel()


class ReadTransport:
    """What a protocol reads from, without a socket."""

    def __init__(self) -> None:
        self.is_reading = True

    def get_extra_info(self, _name: str) -> None:
        return None

    def is_closing(self) -> bool:
        return False

    def write(self, _data: bytes) -> None:
        pass

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True


async def test_others_have_their_turn_between_pieces_of_a_long_body():
    transport, opened = ReadTransport(), []
    protocol = Http2Protocol({}, encrypted=False, opened=opened.append, closed=opened.remove)
    protocol.connection_made(transport)
    begin, piece = PREFACE + settings({}), frame(0x42, 0, 0, bytes(TURN_BYTES))

    protocol.data_received(begin)
    assert transport.is_reading
    for _ in range(3):
        protocol.data_received(piece)
        assert not transport.is_reading
        await asyncio.sleep(0)
        assert transport.is_reading
    protocol.pause_writing()
    protocol.data_received(piece)
    await asyncio.sleep(0)
    assert not transport.is_reading
    protocol.resume_writing()
    assert transport.is_reading
    protocol.connection_lost(None)


async def push(client: socket.socket) -> None:
    """Calls of no method, for ever: each is answered at once, and none is a flood."""
    headers = b"\x83\x86\x84" + b"\x00\x0ccontent-type\x10application/grpc"
    for first in range(1, 2**30, 2000):
        calls = (frame(FrameType.HEADERS, 5, first + i, headers) for i in range(0, 2000, 2))
        await asyncio.get_running_loop().sock_sendall(client, b"".join(calls))


@pytest.mark.parametrize("method", [ECHO, LATE])
async def test_a_call_that_is_over_leaves_nothing_to_the_collector(method):
    """However it ends: 28 objects each of a few hundred calls a second hold up the event loop."""
    async with (
        listening("127.0.0.1:0") as ((port,), service, transport),
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        with only_when_told():
            for timeout_s in (None, 0.1):
                call = channel.stream_stream(method)(timeout=timeout_s)
                await call.write(b"hello")
                await until(lambda: bool(service.calls))
                call.cancel()
            (protocol,) = transport._open
            await until(lambda: not protocol.connection._streams)
            service.calls.clear()
            left = n_alive(Http2Call)
            gc.collect()
            assert left == n_alive(Http2Call)


async def test_what_does_not_end_within_the_grace_is_cut():
    async with listening("127.0.0.1:0") as ((port,), service, transport):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.stream_stream(LATE)()
            await call.write(b"hello")
            await until(lambda: bool(service.calls))
            await asyncio.wait_for(transport.stop(0.1), 30)
            with pytest.raises(grpc.aio.AioRpcError) as told:
                await call.read()
            assert told.value.code() is grpc.StatusCode.UNAVAILABLE
        await until(lambda: service.calls[0].closes == [0])


async def test_a_stop_waits_for_nobody_where_nothing_is_open():
    async with listening("127.0.0.1:0") as ((port,), _, transport):
        assert await echoed(f"127.0.0.1:{port}") == b"hello"
        await asyncio.wait_for(transport.stop(60.0), 30)


@pytest.mark.parametrize("n_bytes", [3 * 2**20, 40 * 2**20])
async def test_large_messages_go_both_ways(n_bytes):
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    async with (
        listening("127.0.0.1:0") as ((port,), _, _),
        grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel,
    ):
        call = channel.stream_stream(ECHO)()
        await call.write(bytes(n_bytes))
        assert await call.read() == bytes(n_bytes)


async def test_what_grpcio_packs_is_unpacked():
    async with listening("127.0.0.1:0") as ((port,), service, _):
        packed = grpc.Compression.Gzip
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", compression=packed) as channel:
            call = channel.stream_stream(ECHO)()
            await call.write(b"hello " * 1000)
            assert await call.read() == b"hello " * 1000
        assert service.calls[0].messages == [b"hello " * 1000]


def test_a_name_that_is_none_is_refused_by_those_there_are():
    with pytest.raises(ValueError, match="there are asyncio, grpcio"):
        new_transport("quic")


def test_messages_are_framed_as_grpc_says():
    assert message_of(b"abc") == b"\0\0\0\0\x03abc"
