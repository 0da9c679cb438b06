"""EventStream: cuts bytes into server-sent events, wherever their chunks are cut.

https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6: lines end in LF, CR
or CRLF, a byte order mark may come first, an event may have many lines of data. Memory is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_LINE_END = re.compile(rb"\r\n|\r|\n")
_HEEDED = (b"data", b"event")
"""Fields that are read; the others say nothing of what became of a request."""


class ServerSentEvent(NamedTuple):
    """One event; *data* is None where it was too long to keep."""

    name: bytes
    data: bytes | None


class EventStream:
    """Reads one stream.

    Args:
        max_bytes: the longest line, and the longest data of an event, that is kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._line = bytearray()
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._name = b""
        self._overflowed = False
        self._after_cr = False

    @property
    def held_bytes(self) -> int:
        """What is kept of the event that is under way."""
        return len(self._line) + self._data_bytes

    def feed(self, chunk: bytes) -> Iterator[ServerSentEvent]:
        """The events that *chunk* ends."""
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        # A carriage return ends the line at once; the line feed it may have comes later.
        self._after_cr = chunk.endswith(b"\r") or (self._after_cr and not chunk)
        *lines, rest = chunk.split(b"\n") if b"\r" not in chunk else _LINE_END.split(chunk)
        for line in lines:
            if self._line or self._overflowed or len(line) > self._max_bytes:
                event = self._end_line(self._kept(line))
            elif line.startswith(_HEEDED) or (not line and (self._data or self._name)):
                event = self._end_line(line)
            else:
                # Comments and other fields: an engine may send thousands in one chunk.
                continue
            if event is not None:
                yield event
        self._keep(rest)

    def finish(self) -> Iterator[ServerSentEvent]:
        """The event that was under way: many engines leave out its blank line."""
        for line in (self._kept(b""), b""):
            event = self._end_line(line)
            if event is not None:
                yield event

    def _kept(self, end: bytes) -> bytes:
        """The line that *end* ends, with what came of it in chunks before."""
        self._keep(end)
        line = bytes(self._line)
        self._line.clear()
        return line

    def _keep(self, part: bytes) -> None:
        if self._overflowed or len(self._line) + len(part) > self._max_bytes:
            self._overflowed = True
            self._line.clear()
        else:
            self._line += part

    def _end_line(self, line: bytes) -> ServerSentEvent | None:
        """The event that *line* ends, if it ends one."""
        if self._overflowed:
            self._overflowed = False
            self._forget()
            return ServerSentEvent(b"", None)
        if not line:
            told = bool(self._data or self._name)
            event = ServerSentEvent(self._name, b"\n".join(self._data)) if told else None
            self._forget()
            return event
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._data_bytes += len(line)
            if self._data_bytes > self._max_bytes:
                self._forget()
                return ServerSentEvent(b"", None)
        elif field == b"event":
            self._name = value
        return None

    def _forget(self) -> None:
        self._data.clear()
        self._data_bytes = 0
        self._name = b""
