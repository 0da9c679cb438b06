"""MessageReader: gRPC messages, read from the bytes of a stream.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from io import BytesIO
from types import MappingProxyType

from lodestar_extproc.transport.calls import MAX_MESSAGE_BYTES, CallRefused, Status

PREFIX = struct.Struct(">BL")
"""Whether a message is compressed, and its length."""
PREFIX_BYTES = 5  # gRPC's Length-Prefixed-Message
_WINDOW_BITS: Mapping[str, int] = MappingProxyType(
    # As zlib numbers its formats.
    {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
)


class MessageReader:
    """Of one stream, whose messages are compressed by *encoding* where they say so."""

    __slots__ = ("_begun", "_encoding", "_flag", "_missing_bytes", "_prefix")

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._prefix = b""
        # A message of which some bytes are still missing. What it holds it gives away as it is, so
        # that a long one is never copied at once, which would hold up the loop for 8 ms each 10 MB.
        self._begun: BytesIO | None = None
        self._flag = self._missing_bytes = 0

    @property
    def is_between(self) -> bool:
        """Whether no message is cut off here."""
        return self._begun is None and not self._prefix

    def feed(self, data: bytes) -> list[bytes]:
        """Take *data*; the messages that are whole now.

        Raises:
            CallRefused: there is one that is not taken.
        """
        messages: list[bytes] = []
        if self._begun is not None:
            part = data[: self._missing_bytes]
            self._begun.write(part)
            self._missing_bytes -= len(part)
            if self._missing_bytes:
                return messages
            whole, self._begun = self._begun.getvalue(), None
            messages.append(self._unpacked(self._flag, whole))
            data = data[len(part) :]
        elif self._prefix:
            data, self._prefix = self._prefix + data, b""
        at, end = 0, len(data)
        while end - at >= PREFIX_BYTES:
            flag, n_bytes = PREFIX.unpack_from(data, at)
            if n_bytes > MAX_MESSAGE_BYTES:
                raise _too_large(n_bytes)
            begin = at + PREFIX_BYTES
            at = begin + n_bytes
            if at > end:
                self._flag, self._missing_bytes = flag, at - end
                self._begun = BytesIO()
                self._begun.write(data[begin:])
                return messages
            messages.append(self._unpacked(flag, data[begin:at]))
        self._prefix = data[at:]
        return messages

    def _unpacked(self, flag: int, message: bytes) -> bytes:
        if not flag:
            return message
        if flag != 1 or self._encoding == "identity":
            raise CallRefused(Status.INTERNAL, "a compressed message without an encoding")
        if self._encoding not in _WINDOW_BITS:
            raise CallRefused(Status.UNIMPLEMENTED, f"no encoding {self._encoding!r} here")
        unpacker = zlib.decompressobj(_WINDOW_BITS[self._encoding])
        try:
            unpacked = unpacker.decompress(message, MAX_MESSAGE_BYTES + 1)
        except zlib.error:
            # In our own words: a library's may say more than a stranger should know.
            text = f"a message is not {self._encoding}, as its header says"
            raise CallRefused(Status.INTERNAL, text) from None
        if len(unpacked) > MAX_MESSAGE_BYTES:
            raise _too_large(len(unpacked))
        if not unpacker.eof:
            raise CallRefused(Status.INTERNAL, "a compressed message is cut off")
        return unpacked


def _too_large(n_bytes: int) -> CallRefused:
    text = f"received message larger than max ({n_bytes} vs. {MAX_MESSAGE_BYTES})"
    return CallRefused(Status.RESOURCE_EXHAUSTED, text)
