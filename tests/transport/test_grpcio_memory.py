"""A call of grpcio that is cut short leaves no memory behind, whoever cut it."""

from __future__ import annotations

import asyncio
import ctypes
import gc
from contextlib import asynccontextmanager

import grpc
import pytest
from hpack import Encoder

from http2_client import CALL, ECHO, EchoService, message_of
from lodestar_extproc.transport.grpcio_call import GrpcioCall
from lodestar_extproc.transport.grpcio_transport import GrpcioTransport
from lodestar_extproc.transport.http2.frames import (
    END_HEADERS,
    PREFACE,
    ErrorCode,
    FrameType,
    frame,
    settings,
)
from waiting import until

N_TOGETHER = 10
N_WARM, N_COUNTED = 30, 150
MESSAGE = message_of(b"hello")
MAX_LEFT_BYTES = 64
"""A call: grpcio leaves 96 of a read that is cut off; up to 40 come and go with any."""


class HeapInfo(ctypes.Structure):
    """`struct mallinfo2` of glibc 2.33 and later; `in_use` is its `uordblks`."""

    _fields_ = [(name, ctypes.c_size_t) for name in "abcdefg"] + [
        ("in_use", ctypes.c_size_t),
        ("free", ctypes.c_size_t),
        ("top", ctypes.c_size_t),
    ]


def in_use_bytes() -> int:
    told = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if told is None:
        pytest.skip("the C library does not tell what is in use")
    told.restype = HeapInfo
    gc.collect()
    return told().in_use


class LeavingClient:
    """HTTP/2 by hand: grpcio's own client, in this process, would leave memory too."""

    def __init__(self, reader, writer) -> None:
        self._writer, self._headers, self._next = writer, Encoder(), 1
        writer.write(PREFACE + settings({}))
        self._reader = reader

    def begin(self, n_calls: int) -> list[int]:
        numbers = list(range(self._next, self._next + 2 * n_calls, 2))
        self._next += 2 * n_calls
        for number in numbers:
            block = self._headers.encode(CALL)
            self._writer.write(frame(FrameType.HEADERS, END_HEADERS, number, block))
            self._writer.write(frame(FrameType.DATA, 0, number, MESSAGE))
        return numbers

    def cancel(self, numbers: list[int]) -> None:
        reset = ErrorCode.CANCEL.to_bytes(4, "big")
        for number in numbers:
            self._writer.write(frame(FrameType.RST_STREAM, 0, number, reset))

    async def answered(self, n_calls: int) -> None:
        for _ in range(n_calls):
            await self._reader.readuntil(MESSAGE)

    def leave(self) -> None:
        self._writer.close()


@asynccontextmanager
async def client_of(service: EchoService):
    transport = GrpcioTransport()
    (port,) = await transport.listen(["127.0.0.1:0"], service.services)
    client = LeavingClient(*await asyncio.open_connection("127.0.0.1", port))
    try:
        yield client
    finally:
        client.leave()
        await transport.stop(0.0)


@pytest.mark.slow
@pytest.mark.parametrize("cut_by", ["client", "service"])
async def test_a_call_that_is_cut_short_while_a_message_is_waited_for_leaves_nothing(cut_by):
    service = EchoService()
    calls = service.calls

    async def cut(client: LeavingClient, n_rounds: int) -> int:
        for _ in range(n_rounds):
            numbers = client.begin(N_TOGETHER)
            await client.answered(N_TOGETHER)
            if cut_by == "client":
                client.cancel(numbers)
            else:
                for each in calls:
                    each.call.end()
            await until(lambda: all(each.closes for each in calls))
            calls.clear()
        return in_use_bytes()

    async with client_of(service) as client:
        before_bytes = await cut(client, N_WARM)
        after_bytes = await cut(client, N_COUNTED)

    assert after_bytes - before_bytes < MAX_LEFT_BYTES * N_TOGETHER * N_COUNTED


class WaitingContext:
    """What grpcio gives to a call: its read ends when the test lets it, as that of a real one ends
    once the call is over."""

    def __init__(self) -> None:
        self.comes = asyncio.get_running_loop().create_future()
        self.is_read = asyncio.Event()

    async def read(self):
        self.is_read.set()
        return await self.comes

    async def write(self, _message):
        pass


async def test_what_comes_after_the_call_has_ended_is_handed_to_nobody():
    context, service = WaitingContext(), EchoService()
    serving = asyncio.create_task(GrpcioCall(context).serve(service.services[ECHO]))
    await context.is_read.wait()
    service.calls[0].call.end()
    await serving
    context.comes.set_result(b"late")
    await until(lambda: len(asyncio.all_tasks()) == 1)

    assert service.calls[0].messages == []
    assert service.calls[0].closes == [0]
    assert service.calls[0].half_closes == 0


@pytest.mark.parametrize("comes", [b"late", grpc.aio.EOF])
async def test_a_client_that_leaves_ends_its_call_once_the_read_has_ended(comes):
    context, service = WaitingContext(), EchoService()
    serving = asyncio.create_task(GrpcioCall(context).serve(service.services[ECHO]))
    await context.is_read.wait()
    serving.cancel()
    await asyncio.sleep(0)
    assert not context.comes.cancelled()
    context.comes.set_result(comes)
    with pytest.raises(asyncio.CancelledError):
        await serving

    assert service.calls[0].messages == []
    assert service.calls[0].closes == [0]
    assert service.calls[0].half_closes == 0
