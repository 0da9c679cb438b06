"""Whatever bytes come, in whatever pieces: nothing raises, nothing piles up, pieces change nothing."""

from __future__ import annotations

import asyncio
import os
import random

import pytest

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

N_SEEDS, N_EACH = int(os.environ.get("LODESTAR_FUZZ_SEEDS", "8")), 25
"""Two hundred conversations of each kind; the variable makes it as many as one has patience for."""


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


def mutated(rng: random.Random, frames: list[bytes]) -> bytes:
    """Frames swapped, dropped and doubled, and some bytes of them changed."""
    frames = list(frames)
    for _ in range(rng.randint(0, 4)):
        at = rng.randrange(len(frames))
        match rng.randrange(4):
            case 0:
                frames.insert(rng.randrange(len(frames) + 1), frames[at])
            case 1 if len(frames) > 1:
                del frames[at]
            case 2:
                head = bytearray(frames[at])
                head[rng.randrange(min(len(head), HEADER_BYTES))] = rng.randrange(256)
                frames[at] = bytes(head)
            case _:
                body = bytearray(frames[at])
                body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
                frames[at] = bytes(body)
    return b"".join(frames)


def pieces(rng: random.Random, data: bytes) -> list[bytes]:
    most = rng.choice((1, 7, 100, 5_000, 100_000))
    found, at = [], 0
    while at < len(data):
        n = rng.randint(1, most)
        found.append(data[at : at + n])
        at += n
    return found


def said_by(client: Http2Client) -> tuple:
    """All that the service heard; how much of its answers left before the client did is no such."""
    heard = [(call.messages, call.half_closes, len(call.closes)) for call in client.service.calls]
    return heard, client.is_closed


async def run(parts: list[bytes]) -> tuple:
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
    return (*said_by(client), answered)


@pytest.mark.parametrize("seed", range(N_SEEDS))
async def test_whatever_comes_nothing_raises_and_every_call_is_closed_once(seed):
    rng = random.Random(seed)
    for _ in range(N_EACH):
        await run(pieces(rng, mutated(rng, conversation(rng))))


@pytest.mark.parametrize("seed", range(N_SEEDS))
async def test_how_bytes_are_cut_changes_nothing(seed):
    """Of calls that are answered at once: what comes later may come in another order."""
    rng = random.Random(seed)
    for _ in range(N_EACH):
        data = mutated(rng, [f for f in conversation(rng) if LATE.encode() not in f])
        whole = await run([data])
        assert await run(pieces(rng, data)) == whole


@pytest.mark.parametrize("seed", range(N_SEEDS))
async def test_bytes_of_no_sense_at_all_raise_nothing(seed):
    rng = random.Random(seed)
    for _ in range(N_EACH):
        begun = PREFACE + settings({}) if rng.random() < 0.8 else b""
        await run([begun, *pieces(rng, rng.randbytes(rng.randint(0, 500)))])


async def test_a_byte_at_a_time_costs_no_more_than_the_bytes():
    """A frame of 1 MiB in single bytes: each is looked at once."""
    client = Http2Client().greet()
    client.call(1)
    data = frame(FrameType.DATA, 0, 1, message_of(bytes(2**20 - 5)))
    client.connection.receive(data[:10])
    reader = client.connection._reader
    taken = 0
    for at in range(10, len(data)):
        client.connection.receive(data[at : at + 1])
        taken += len(reader._buffer) == 0
    assert taken == 1
    assert client.service.calls[0].messages == [bytes(2**20 - 5)]
