"""Mutations of inputs: of their bytes, and of the values in the JSON that they hold."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

MAX_INPUT_BYTES = 32 * 2**10
INTERESTING = (b"", b"\0", b"\xff" * 8, b"-1", b"1e999", b"NaN", b"null", b"[]", b"{}", b'"', b"\n")
VALUES = (None, True, 0, -1, 2**53, 2**63, 1e300, 0.5, "", "x", "1", [], {}, [None], [[1], [2, 3]])


def mutated(known: Sequence[bytes], rng: random.Random) -> bytes:
    """One of *known*, changed in a value of its JSON where it has any, or in its bytes."""
    data = rng.choice(known)
    changed = with_another_value(data, rng) if rng.random() < 0.5 else None
    return (changed or with_other_bytes(data, known, rng))[:MAX_INPUT_BYTES]


def with_other_bytes(given: bytes, known: Sequence[bytes], rng: random.Random) -> bytes:
    """Some of it cut, replaced, flipped, or taken from another of *known*."""
    data = bytearray(given)
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
    return bytes(data)


def with_another_value(data: bytes, rng: random.Random) -> bytes | None:
    """One value replaced, in one of the lines that end with JSON; None where there is none.

    By a plain one, or by another of the same document: a place may take what another has.
    """
    lines = data.split(b"\n")
    found = [(number, at) for number, line in enumerate(lines) if (at := line.find(b"{")) >= 0]
    if not found:
        return None
    number, at = rng.choice(found)
    try:
        changed = with_value_replaced(orjson.loads(lines[number][at:]), rng)
        lines[number] = lines[number][:at] + orjson.dumps(changed)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError, RecursionError):
        return None  # no JSON, or too deep for it
    return b"\n".join(lines)


def with_value_replaced(document: Any, rng: random.Random) -> Any:
    places = list(places_in(document))
    by = rng.choice(VALUES) if rng.random() < 0.7 else value_at(document, rng.choice(places))
    return replaced(document, rng.choice(places), by)


def places_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value[:8]) if isinstance(value, list) else items
    for key, each in items:
        yield from places_in(each, (*path, key))


def value_at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    if not path:
        return by
    value = copy.copy(value)
    value[path[0]] = replaced(value[path[0]], path[1:], by)
    return value
