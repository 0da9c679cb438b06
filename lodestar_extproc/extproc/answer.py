"""AnswerReader: finds the first token, errors and usage in the bytes of an answer.

It knows server-sent events and JSON bodies, in chunks cut anywhere; nothing of requests or time.
Memory is bounded by MAX_DOCUMENT_BYTES whatever comes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import orjson

from lodestar_extproc.extproc.payload import NO_USAGE, Usage, is_error, is_token, usage_of

MAX_DOCUMENT_BYTES = 2**20
"""The longest event or JSON body that is read; a longer one is content, its usage is lost.

A judgement: an answer of 100,000 tokens in one piece is about 400 KB.
"""
_DONE = b"[DONE]"
# Once the first token is out, only events with one of these still matter.
_LATE_SIGNS = (b'"usage"', b'"error"', b"response.failed")


class _Format(StrEnum):
    EVENTS = "events"
    JSON = "json"
    OTHER = "other"


class AnswerReader:
    """Reads one answer.

    Attributes:
        first_token: generated content has been seen.
        failed: the engine reported an error.
        usage: what the engine counted, as far as it has said.
    """

    def __init__(self) -> None:
        self.first_token = False
        self.failed = False
        self.usage: Usage = NO_USAGE
        self._format: _Format | None = None
        self._buffer = bytearray()
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._overflowed = False

    @property
    def in_events(self) -> bool:
        """Whether the answer comes as a stream of events; False until it has begun."""
        return self._format is _Format.EVENTS

    def feed(self, chunk: bytes) -> None:
        """Read the next bytes."""
        if self._format is None:
            chunk = chunk.lstrip(b"\r\n\t ")
            self._format = _format_of(chunk)
        if self._format is _Format.EVENTS:
            self._feed_events(chunk)
        elif self._format is _Format.JSON:
            self._keep(chunk)

    def finish(self) -> None:
        """The answer is complete."""
        if self._format is _Format.EVENTS:
            self._line(bytes(self._buffer))
            self._event()
        elif self._format is _Format.JSON:
            self._document()
        self._buffer.clear()

    def _feed_events(self, chunk: bytes) -> None:
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            if self._buffer or self._overflowed:
                self._keep(line)
                whole = bytes(self._buffer)
                self._buffer.clear()
                self._line(whole)
            else:
                self._line(line)
        self._keep(rest)

    def _keep(self, part: bytes) -> None:
        if len(self._buffer) + len(part) > MAX_DOCUMENT_BYTES:
            self._overflowed = True
            self._buffer.clear()
        if not self._overflowed:
            self._buffer += part

    def _line(self, line: bytes) -> None:
        """Read one line of an event stream; comments and event names are ignored."""
        if self._overflowed:
            # Only generated content makes a line this long.
            self._overflowed = False
            self.first_token = True
            return
        line = line.removesuffix(b"\r")
        if not line:
            self._event()
        elif line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
            self._data_bytes += len(line)
            if self._data_bytes > MAX_DOCUMENT_BYTES:
                self._forget_data()
                self.first_token = True

    def _event(self) -> None:
        """A blank line ended the event: read its data."""
        data = b"\n".join(self._data)
        self._forget_data()
        if not data or data == _DONE:
            return
        if self.first_token and not any(sign in data for sign in _LATE_SIGNS):
            return
        event = _load(data)
        if isinstance(event, dict):
            self._read(event)
            self.first_token = self.first_token or (not self.failed and is_token(event))
        elif event is None:
            # Data that is not JSON is content in an engine's own format.
            self.first_token = True

    def _forget_data(self) -> None:
        self._data.clear()
        self._data_bytes = 0

    def _document(self) -> None:
        """Read a body that came in one piece; its first token is known only at its end."""
        if self._overflowed:
            self.first_token = True
            return
        document = _load(bytes(self._buffer))
        if isinstance(document, dict):
            self._read(document)
        self.first_token = document is not None and not self.failed

    def _read(self, document: dict[str, Any]) -> None:
        self.failed = self.failed or is_error(document)
        self.usage = self.usage.updated(usage_of(document))


def _format_of(start: bytes) -> _Format | None:
    """Tell the format by the first byte: an event stream begins with a field's name or a colon."""
    if not start:
        return None
    if start[0] in b"{[":
        return _Format.JSON
    return _Format.EVENTS if start[0] in b"deir:" else _Format.OTHER


def _load(data: bytes) -> Any:
    """Parse JSON; None where *data* is no JSON."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
