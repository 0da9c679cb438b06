"""Whatever bytes come, in whatever pieces: nothing raises, nothing piles up, pieces change nothing."""

from __future__ import annotations

import os
import random

import pytest

from http2_client import LATE, Http2Client, message_of
from http2_conversations import conversation, pieces, talk
from lodestar_extproc.transport.http2.frames import (
    HEADER_BYTES,
    PREFACE,
    FrameType,
    frame,
    settings,
)

N_SEEDS, N_EACH = int(os.environ.get("LODESTAR_FUZZ_SEEDS", "8")), 25
"""Two hundred conversations of each kind; the variable makes it as many as one has patience for."""


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


@pytest.mark.parametrize("seed", range(N_SEEDS))
async def test_whatever_comes_nothing_raises_and_every_call_is_closed_once(seed):
    rng = random.Random(seed)
    for _ in range(N_EACH):
        await talk(pieces(rng, mutated(rng, conversation(rng))))


@pytest.mark.parametrize("seed", range(N_SEEDS))
async def test_how_bytes_are_cut_changes_nothing(seed):
    """Of calls that are answered at once: what comes later may come in another order."""
    rng = random.Random(seed)
    for _ in range(N_EACH):
        data = mutated(rng, [f for f in conversation(rng) if LATE.encode() not in f])
        whole = await talk([data])
        assert await talk(pieces(rng, data)) == whole


@pytest.mark.parametrize("seed", range(N_SEEDS))
async def test_bytes_of_no_sense_at_all_raise_nothing(seed):
    rng = random.Random(seed)
    for _ in range(N_EACH):
        begun = PREFACE + settings({}) if rng.random() < 0.8 else b""
        await talk([begun, *pieces(rng, rng.randbytes(rng.randint(0, 500)))])


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
