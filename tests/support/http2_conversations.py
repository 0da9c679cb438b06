"""Conversations over HTTP/2: what a client might say, and what must hold whatever it says."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

from http2_client import ECHO, LATE, Http2Client, message_of
from lodestar_extproc.transport.http2.frame_reader import MAX_FRAME_BYTES
from lodestar_extproc.transport.http2.frames import (
    END_HEADERS,
    END_STREAM,
    HEADER_BYTES,
    PREFACE,
    FrameType,
    Http2Setting,
    frame,
    number,
    settings,
)
from lodestar_extproc.transport.http2.header_blocks import MAX_BLOCK_BYTES


def conversation(rng: random.Random) -> list[bytes]:
    """What a client might well send, frame by frame."""
    client = Http2Client()
    frames = [
        PREFACE + settings({Http2Setting.INITIAL_WINDOW_SIZE: rng.choice((0, 5, 65_535, 2**20))})
    ]
    for stream_id in range(1, 2 * rng.randint(1, 8), 2):
        path = rng.choice((ECHO, ECHO, LATE, "/test/Nothing"))
        block = client.block(path, ("x-n", str(rng.randint(0, 2))))
        cut = rng.randint(0, len(block))
        frames.append(frame(FrameType.HEADERS, 0, stream_id, block[:cut]))
        frames.append(frame(FrameType.CONTINUATION, END_HEADERS, stream_id, block[cut:]))
        for _ in range(rng.randint(0, 3)):
            data = message_of(rng.randbytes(rng.choice((0, 3, 400, 20_000))))
            frames.append(frame(FrameType.DATA, 0, stream_id, data))
        kind = rng.choice((FrameType.DATA, FrameType.RST_STREAM, FrameType.WINDOW_UPDATE))
        payload = b"" if kind is FrameType.DATA else number(rng.randint(1, 9))
        frames.append(frame(kind, END_STREAM, stream_id, payload))
        frames.append(frame(FrameType.PING, 0, 0, rng.randbytes(8)))
    return frames


def pieces(rng: random.Random, data: bytes) -> list[bytes]:
    most = rng.choice((1, 7, 100, 5_000, 100_000))
    found, at = [], 0
    while at < len(data):
        n = rng.randint(1, most)
        found.append(data[at : at + n])
        at += n
    return found


@dataclass(frozen=True)
class Heard:
    """What came of a conversation; how much of its answers left before the client did is no such.

    Attributes:
        calls: of each its messages, how often it was half closed, and closed.
        was_late: something was answered a moment later, in whatever order.
    """

    calls: list[tuple[list[bytes], int, int]]
    is_closed: bool
    answered: bytes
    was_late: bool = field(compare=False)


async def talk(parts: list[bytes]) -> Heard:
    """Say *parts*, and leave; what the service heard, and what it answered.

    Raises:
        AssertionError: something is held without a bound, not closed once, or left.
    """
    client = Http2Client()
    client.service.gate.set()
    for part in parts:
        client.connection.receive(part)
        reader = client.connection._reader
        held = len(reader._buffer) + len(reader._block.payload if reader._block else b"")
        assert held <= MAX_FRAME_BYTES + HEADER_BYTES + MAX_BLOCK_BYTES
    for _ in range(30):
        await asyncio.sleep(0)
    answered = bytes(client.written)
    client.connection.lost()
    for _ in range(30):
        await asyncio.sleep(0)
    assert all(len(call.closes) == 1 for call in client.service.calls)
    assert all(task.done() for task in client._tasks)
    assert not client.failures
    assert not client.connection._streams
    calls = client.service.calls
    heard = [(call.messages, call.half_closes, len(call.closes)) for call in calls]
    return Heard(heard, client.is_closed, answered, any(call.late for call in calls))
