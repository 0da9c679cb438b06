"""The fuzzing targets by name, and the inputs that they begin from."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import edge_targets
import file_targets
import seeds

MAX_INPUT_BYTES = 32 * 2**10


class FuzzTarget(NamedTuple):
    """*check* raises for what may not be; *seeds* are inputs of the right shape."""

    check: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]


TARGETS = {
    "wire": FuzzTarget(edge_targets.wire_messages, seeds.wire_messages),
    "bodies": FuzzTarget(edge_targets.bodies, seeds.bodies),
    "answers": FuzzTarget(edge_targets.answers, seeds.answers),
    "access_log": FuzzTarget(edge_targets.access_log, seeds.access_log),
    "metric_page": FuzzTarget(file_targets.metric_page, seeds.metric_page),
    "envoy_config": FuzzTarget(file_targets.envoy_config, seeds.envoy_config),
    "checkpoint": FuzzTarget(file_targets.checkpoint, seeds.checkpoint),
    "journal": FuzzTarget(file_targets.journal, seeds.journal),
    "frames": FuzzTarget(file_targets.frames, seeds.frames),
}
INTERESTING = (b"", b"\0", b"\xff" * 8, b"-1", b"1e999", b"NaN", b"null", b"[]", b"{}", b'"', b"\n")


def mutated(known: Sequence[bytes], rng: random.Random) -> bytes:
    """One of *known* with some of it cut, doubled, flipped, or replaced by a part of another."""
    data = bytearray(rng.choice(known))
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        start = rng.randrange(len(data) + 1)
        end = min(len(data), start + rng.choice((0, 1, 1, 4, 20, 200)))
        match rng.randrange(4):
            case 0:
                data[start:end] = b""
            case 1:
                data[start:end] = rng.choice(INTERESTING)
            case 2:
                data[start:end] = bytes(x ^ (1 << rng.randrange(8)) for x in data[start:end])
            case 3:
                other = rng.choice(known)
                at = rng.randrange(len(other) + 1)
                data[start:end] = other[at : at + rng.choice((1, 8, 64, 512))]
    return bytes(data[:MAX_INPUT_BYTES])
