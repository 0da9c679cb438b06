"""Content codings: undoes gzip and deflate as the bytes come, bounded; the others stay unread."""

from __future__ import annotations

import zlib
from typing import Protocol

MAX_INFLATED_BYTES = 2**20
"""Of one chunk: as long as the longest document that is read (`answer.py`), not tuned."""
_GZIP, _ZLIB, _RAW = 31, 15, -15
"""zlib's `wbits` for each framing: https://docs.python.org/3/library/zlib.html."""
_GZIP_MAGIC = b"\x1f\x8b"  # RFC 1952, section 2.3.1
_ZLIB_METHOD = 0x78  # RFC 1950, section 2.2: deflate with a window of 32 KiB


class Unreadable(ValueError):  # noqa: N818  (the condition's name)
    """The bytes are not what their coding says, or inflate beyond measure.

    Attributes:
        before: what the chunk brought forth before they were: however an answer is cut, the same
            of it is read.
    """

    def __init__(self, problem: str, before: bytes = b"") -> None:
        super().__init__(problem)
        self.before = before


class Decoder(Protocol):
    """Undoes one coding."""

    def feed(self, chunk: bytes) -> bytes:
        """The bytes that *chunk* brings forth.

        Raises:
            Unreadable: none can be had of it.
        """


class Identity:
    """Nothing was coded."""

    def feed(self, chunk: bytes) -> bytes:
        return chunk


class Inflate:
    """gzip, or deflate with or without zlib's header, which senders disagree about."""

    def __init__(self) -> None:
        self._inflater: zlib._Decompress | None = None
        self._ended = False

    def feed(self, chunk: bytes) -> bytes:
        if self._ended:
            return b""
        if self._inflater is None:
            self._inflater = zlib.decompressobj(_framing(chunk))
        before = self._inflater.copy()
        try:
            inflated = self._inflater.decompress(chunk, MAX_INFLATED_BYTES)
        except zlib.error as error:
            raise Unreadable(str(error), _until_damaged(before, chunk)) from None
        if self._inflater.unconsumed_tail:
            raise Unreadable("too much in one chunk")
        if self._inflater.eof:
            # zlib would keep whatever follows.
            self._ended, self._inflater = True, None
        return inflated


def decoder_of(content_encoding: str | None, start: bytes) -> Decoder | None:
    """What undoes the coding of an answer that begins with *start*; None where nothing here does.

    Args:
        content_encoding: the header; None where it was not sent here, and *start* has to tell.
    """
    if content_encoding is None:
        return Inflate() if _is_deflated(start) else Identity()
    match content_encoding.strip().lower():
        case "" | "identity":
            return Identity()
        case "gzip" | "x-gzip" | "deflate":
            return Inflate()
    return None


def _until_damaged(inflater: zlib._Decompress, chunk: bytes) -> bytes:
    """What *chunk* brings forth before its damage, which zlib itself forgets; a byte at a time."""
    inflated = bytearray()
    for at in range(len(chunk)):
        try:
            inflated += inflater.decompress(chunk[at : at + 1], MAX_INFLATED_BYTES)
        except zlib.error:
            break
        if len(inflated) > MAX_INFLATED_BYTES:
            break
    return bytes(inflated)


def _framing(start: bytes) -> int:
    if start[:1] == _GZIP_MAGIC[:1]:
        return _GZIP
    return _ZLIB if start[:1] and start[0] & 0x0F == _ZLIB_METHOD & 0x0F else _RAW


def _is_deflated(start: bytes) -> bool:
    """By its first two bytes; text begins with neither."""
    if start[:2] == _GZIP_MAGIC:
        return True
    # A multiple of 31 by RFC 1950; "x" at the start of a text almost never makes one.
    return (
        len(start) > 1 and start[0] == _ZLIB_METHOD and int.from_bytes(start[:2], "big") % 31 == 0
    )
