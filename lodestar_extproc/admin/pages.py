"""PagesInTurn: long pages, one at a time and piece by piece, so that requests come between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import orjson

FORM = orjson.OPT_SERIALIZE_NUMPY
"""NaN, which stands for unknown in arrays, becomes null."""
ITEMS = 8
"""Of a list, in one piece: a tenth of a millisecond."""


class PagesInTurn:
    """Whoever asks for a long page waits for those who asked before, and no request for any."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def whole(self, pieces: Iterable[bytes]) -> bytes:
        """All *pieces*, made one in each turn of the event loop."""
        page = bytearray()
        async with self._turn:
            for piece in pieces:
                page += piece
                await asyncio.sleep(0)
        return bytes(page)


def with_list(head: dict[str, Any], name: str, items: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """*head* as JSON with *items* under *name* at its end, in pieces.

    >>> b"".join(with_list({"a": 1}, "b", [{"c": 2}, {"c": 3}]))
    b'{"a":1,"b":[{"c":2},{"c":3}]}'
    """
    opened = orjson.dumps(head, option=FORM)[:-1]
    yield opened + (b',"' if head else b'"') + name.encode() + b'":['
    rest, first = iter(items), True
    while some := list(islice(rest, ITEMS)):
        listed = orjson.dumps(some, option=FORM)[1:-1]
        yield listed if first else b"," + listed
        first = False
    yield b"]}"


def listed(objects: Iterable[Iterable[bytes]]) -> Iterator[bytes]:
    """JSON objects, each in pieces, as the pieces of one list."""
    before = b"["
    for pieces in objects:
        yield before
        yield from pieces
        before = b","
    yield b"[]" if before == b"[" else b"]"
