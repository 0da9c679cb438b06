"""What a client of our own HTTP/2 sends, as a fuzzing target."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from functools import cache
from itertools import pairwise

from http2_conversations import conversation, talk
from lodestar_extproc.transport.http2.frames import PREFACE, settings

N_SEEDS = 12
"""Conversations to begin from."""
N_CUTS = 12
"""Enough to part a frame's head, and few enough for many conversations a second."""


def conversations() -> Iterator[bytes]:
    """Well spoken, with a greeting of their own or that of the target."""
    for seed in range(N_SEEDS):
        greeting, *frames = _loop().run_until_complete(_made(seed))
        yield b"\x80" + greeting + b"".join(frames)
        yield b"\x00" + b"".join(frames)


def http2(data: bytes) -> None:
    """A connection's bytes, whole and in pieces; the first says whether it begins as one has to."""
    greeting = PREFACE + settings({}) if data[:1] < b"\x80" else b""
    said = greeting + data[1:]
    _loop().run_until_complete(_heard_alike(said, _cut(said)))


def _cut(said: bytes) -> list[bytes]:
    places = sorted(random.Random(said).choices(range(len(said) + 1), k=N_CUTS))
    return [said[start:end] for start, end in pairwise([0, *places, len(said)])]


async def _made(seed: int) -> list[bytes]:
    return conversation(random.Random(seed))


async def _heard_alike(said: bytes, parts: list[bytes]) -> None:
    whole, cut = await talk([said]), await talk(parts)
    # What is answered later may come in another order.
    assert whole == cut or whole.was_late or cut.was_late


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()
