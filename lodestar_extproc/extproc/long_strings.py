"""LongStrings: the long strings of a large body, read apart from it, piece by piece.

A JSON reader takes a body in one go, and text beyond Latin-1 up to four times its size. Without its
long strings even the largest honest body is short. It knows strings and bytes, not what they say.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import xxhash

from lodestar_extproc.extproc.budget import Limit, OverBudget
from lodestar_extproc.extproc.json_text import load
from lodestar_extproc.extproc.media import LOOK_BYTES, is_encoded
from lodestar_extproc.extproc.quotes import SLICE_BYTES, StringEdges

LARGE_BYTES = 2 * 2**20
"""A body up to this size is read in one go: 2 to 5 ms, and at most 8 MiB of text."""
LONG_BYTES = 1024
"""A string from here on is read apart; shorter ones are faster read with the rest. Not tuned."""
MAX_REST_BYTES = 2 * 2**20
"""What is read in one go of a body without its long strings: up to 5 ms."""
MAX_KEPT_BYTES = 4 * 2**20
"""Text of one body that is kept to be hashed; a million tokens, the longest context windows."""

_ESCAPE_BYTES = 12  # of a surrogate pair, the longest: \\ud83d\\ude00
_HIGH_SURROGATE = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\Z")


@dataclass(frozen=True, slots=True)
class LongString:
    """A string that was read apart.

    Attributes:
        data: its beginning in UTF-8; all of it where `n_bytes` is no more.
        n_bytes: of all of it.
        digest: xxh3_128 of all of it, in UTF-8.
    """

    data: bytes | bytearray
    n_bytes: int
    digest: bytes


class LongStrings:
    """Parts the long strings from one body, and finds them again by what stands in their place."""

    def __init__(self) -> None:
        self._mark = ""
        self._strings: list[LongString] = []
        self._left_bytes = MAX_KEPT_BYTES

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._strings)

    def stand_in(self, form: bytes) -> bool:
        """Whether any of them belongs into *form*, written from the rest of the body."""
        return bool(self._strings) and self._mark.encode() in form

    def find(self, text: str) -> LongString | None:
        """The string that *text* stands for; None where it stands for itself."""
        if self._strings and text.startswith(self._mark):
            return self._strings[int(text[len(self._mark) :])]
        return None

    def text(self, value: str) -> str:
        """What *value* stands for, as far as it was kept."""
        long = self.find(value)
        return value if long is None else long.data.decode("utf-8", "surrogatepass")

    def spelled(self, form: bytes) -> Iterator[tuple[bytes, LongString | None]]:
        """*form*, a text of JSON, in pieces, and what stands after each but the last."""
        if not self._strings:
            yield form, None
            return
        pieces = re.split(self._mark.encode() + rb"([0-9]+)", form)
        for piece, number in zip(pieces[0::2], [*pieces[1::2], None], strict=True):
            yield piece, None if number is None else self._strings[int(number)]

    def part(self, body: bytes) -> Generator[None, None, bytes]:
        """Read the long strings of *body*, in slices; returns *body* without them.

        Raises:
            OverBudget: the rest is long too.
            InvalidRequest: a string is none.
        """
        self._mark = f"{secrets.token_hex(8)}:"
        rest, kept_to = bytearray(), 0
        for begin, end in _long_spans(body):
            if begin == end:
                yield
                continue
            rest += memoryview(body)[kept_to:begin]
            rest += f"{self._mark}{len(self._strings)}".encode()
            if len(rest) > MAX_REST_BYTES:
                raise OverBudget(Limit.BYTES)
            yield from self._read(body, begin, end)
            kept_to = end
        if len(rest) + len(body) - kept_to > MAX_REST_BYTES:
            raise OverBudget(Limit.BYTES)
        rest += memoryview(body)[kept_to:]
        return bytes(rest)

    def _read(self, body: bytes, begin: int, end: int) -> Iterator[None]:
        kept, n_bytes, digest = bytearray(), 0, xxhash.xxh3_128()
        # Of an image nothing but its digest is wanted, and texts after it have to be kept.
        encoded = is_encoded(body[begin : min(end, begin + LOOK_BYTES)].decode("latin-1"))
        most = LOOK_BYTES if encoded else self._left_bytes
        while begin < end:
            cut = _cut(body, begin, end)
            piece = body[begin:cut]
            if b"\\" in piece or not piece.isascii():
                piece = load(b'"' + piece + b'"').encode("utf-8", "surrogatepass")
            digest.update(piece)
            n_bytes += len(piece)
            kept += piece[: max(0, most - len(kept))]
            begin = cut
            if begin < end:
                yield
        if not encoded:
            self._left_bytes -= len(kept)
        self._strings.append(LongString(kept, n_bytes, digest.digest()))


def _long_spans(body: bytes) -> Iterator[tuple[int, int]]:
    """Where long strings begin and end, without their quotes; (0, 0) after each slice."""
    edges, open_at = StringEdges(body), -1
    for start in range(0, len(body), SLICE_BYTES):
        found = edges.quotes(start)
        if open_at >= 0 and len(found):
            if found[0] - open_at > LONG_BYTES:
                yield open_at + 1, int(found[0])
            found, open_at = found[1:], -1
        opens, closes = found[0::2], found[1::2]
        for k in (closes - opens[: len(closes)] > LONG_BYTES).nonzero()[0]:
            yield int(opens[k]) + 1, int(closes[k])
        if len(opens) > len(closes):
            open_at = int(opens[-1])
        yield 0, 0


def _cut(body: bytes, begin: int, end: int) -> int:
    """Where to end a piece from *begin* on: in no character and in no escape."""
    cut = begin + SLICE_BYTES
    if cut >= end:
        return end
    last = body.rfind(b"\\", cut - _ESCAPE_BYTES, cut)
    if last < 0:
        while body[cut] & 0xC0 == 0x80 and cut > begin + 1:  # inside of a UTF-8 character
            cut -= 1
        return cut
    n_back = _backslashes(body, begin, last + 1)
    cut = last + 1 - n_back
    if cut == begin:
        return last + 1 - n_back % 2
    # A pair of surrogates is one character, in two escapes.
    if _HIGH_SURROGATE.search(body, max(begin, cut - 6), cut):
        cut -= 6 * (_backslashes(body, begin, cut - 5) % 2)
    return cut if cut > begin else end


def _backslashes(body: bytes, begin: int, end: int) -> int:
    """How many of them stand right before *end*."""
    before = body[begin:end]
    return len(before) - len(before.rstrip(b"\\"))
