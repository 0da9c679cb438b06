"""AnswerReader: finds the first token, errors, the end and usage in the bytes of an answer.

It knows server-sent events, lines of JSON and JSON bodies, in chunks cut anywhere, plain or
deflated; nothing of requests or time. Memory is bounded by MAX_DOCUMENT_BYTES whatever comes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import orjson

from lodestar_extproc.completion import AnswerForm, KeptState
from lodestar_extproc.extproc.answer_start import BodyFormat, body_format, without_mark
from lodestar_extproc.extproc.content_coding import Decoder, Unreadable, decoder_of
from lodestar_extproc.extproc.event_stream import EventStream, ServerSentEvent
from lodestar_extproc.extproc.payload import (
    NO_USAGE,
    Usage,
    is_answer,
    is_end,
    is_error,
    is_promise,
    is_token,
    kept_of,
    usage_of,
)
from lodestar_extproc.extproc.plain_chunk import PlainChunk, plain_chunk

MAX_DOCUMENT_BYTES = 2**20
"""The longest event or JSON body that is read; a longer one is content, its usage is lost.

A judgement: an answer of 100,000 tokens in one piece is about 400 KB.
"""
_DONE = b"[DONE]"
_ERROR_NAMES = (b"error", b"err", b"exception", b"failed")
_ERROR_TEXTS = (b"error", b"[error", b"internal server error", b"traceback")
# Once the first token is out, only events with one of these still matter.
_LATE_SIGNS = re.compile(
    rb'"usage"|"errors?"|"message_stop"|response\.(?:failed|incomplete|cancelled|completed)'
    rb'|"(?:finish|stop|done)_reason" *: *["{]'
)


class AnswerReader:
    """Reads one answer.

    Args:
        headers: content-type and content-encoding, where they are sent here.

    Attributes:
        first_token: generated content has been seen.
        failed: the engine reported an error.
        usage: what the engine counted, as far as it has said.
        kept: name and state of what the engine keeps, as far as it has said; None for nothing.
    """

    def __init__(self, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        self.first_token = False
        self.failed = False
        self.usage: Usage = NO_USAGE
        self.kept: tuple[str, KeptState] | None = None
        self._promises = False
        self._headers = headers
        self._decoder: Decoder | None = None
        self._format: BodyFormat | None = None
        self._coded_start = b""
        self._events = EventStream(MAX_DOCUMENT_BYTES)
        self._body = bytearray()
        self._overflowed = False
        self._foreign = False
        self._ended = False

    @property
    def in_events(self) -> bool:
        """Whether the answer comes as a stream of events; False until it has begun."""
        return self._format in (BodyFormat.EVENTS, BodyFormat.LINES)

    @property
    def prefill_is_over(self) -> bool:
        """Whether the engine has come past its prefill, as far as can be told."""
        return self.first_token or self._foreign or self._format is BodyFormat.UNREADABLE

    @property
    def form(self) -> AnswerForm:
        """What the answer is; before its end, what it has been until now."""
        if self._format is BodyFormat.UNREADABLE:
            return AnswerForm.UNREADABLE
        if self._promises:
            return AnswerForm.PROMISE
        if self.first_token:
            return AnswerForm.STREAM if self.in_events else AnswerForm.ONE_PIECE
        foreign = self._foreign or self._format in (BodyFormat.TEXT, BodyFormat.JSON)
        return AnswerForm.FOREIGN if foreign else AnswerForm.NOTHING

    @property
    def form_at_end(self) -> AnswerForm:
        """What the whole answer was, once it has ended."""
        if self.form is AnswerForm.STREAM and not self._ended:
            return AnswerForm.UNFINISHED
        return self.form

    @property
    def held_bytes(self) -> int:
        """What is kept of it."""
        return len(self._body) + len(self._coded_start) + self._events.held_bytes

    def feed(self, chunk: bytes) -> None:
        """Read the next bytes."""
        if self._format in (BodyFormat.UNREADABLE, BodyFormat.TEXT):
            return
        try:
            self._take(self._decoded(chunk))
        except Unreadable as error:
            self._take(error.before)
            self._give_up()

    def _take(self, chunk: bytes) -> None:
        """Read the next bytes, as the engine wrote them."""
        if self._format is None:
            chunk = self._begun(chunk)
        if self._format is BodyFormat.EVENTS:
            self._read_events(self._events.feed(chunk))
        elif self._format is BodyFormat.LINES:
            self._read_lines(chunk)
        elif self._format is BodyFormat.JSON:
            self._keep(chunk)
            self._look_for_lines()

    def finish(self) -> None:
        """The answer is complete."""
        if self._format is None:
            self._body += self._coded_start
            self._format = body_format(bytes(self._body), self._headers, whole=True)
        if self._format is BodyFormat.EVENTS:
            self._read_events(self._events.finish())
        elif self._format is BodyFormat.LINES:
            self._read_lines(b"\n")
        elif self._format is BodyFormat.JSON:
            self._document()
        self._body.clear()
        self._coded_start = b""

    # -- its beginning ------------------------------------------------------------------------

    def _decoded(self, chunk: bytes) -> bytes:
        if self._decoder is None:
            # Two bytes tell a coding that no header names.
            start = self._coded_start + chunk
            if len(start) < 2:
                self._coded_start = start
                return b""
            self._coded_start = b""
            self._decoder = decoder_of(self._headers.get("content-encoding"), start)
            if self._decoder is None:
                raise Unreadable("a coding that is not undone here")
            chunk = start
        return self._decoder.feed(chunk)

    def _begun(self, chunk: bytes) -> bytes:
        """Tell the format, as soon as enough has come; what is to be read by it."""
        start = without_mark(bytes(self._body) + chunk)
        self._body.clear()
        self._format = body_format(start, self._headers)
        if self._format is not None:
            return start
        self._body += start
        return b""

    def _give_up(self) -> None:
        if self._format is not BodyFormat.TEXT:
            self._format = BodyFormat.UNREADABLE
        self._body.clear()

    # -- documents ----------------------------------------------------------------------------

    def _read_events(self, events: Any) -> None:
        for event in events:
            self._event(event)

    def _event(self, event: ServerSentEvent) -> None:
        if event.name.strip().lower() in _ERROR_NAMES:
            self.failed = True
        data = event.data
        if data is None:
            # Only generated content makes an event this long.
            self.first_token = True
            return
        text = data.strip()
        if text == _DONE:
            self._ended = True
        elif text and (not self.first_token or _LATE_SIGNS.search(text)):
            self._read_part(text)

    def _read_part(self, text: bytes) -> None:
        """One document of many."""
        document = _load(text)
        for part in document if isinstance(document, list) else (document,):
            if not isinstance(part, dict):
                continue
            plain = plain_chunk(part)
            if plain is None:
                self._read(part)
                self.first_token = self.first_token or (not self.failed and is_token(part))
            else:
                self._read_plain(part, plain)
        if document is None:
            self.failed = self.failed or text.lower().startswith(_ERROR_TEXTS)
            self._foreign = True

    def _look_for_lines(self) -> None:
        """A first line that is a whole document begins a stream of them."""
        end = self._body.find(b"\n")
        if end < 0 or self._overflowed or self._body[:1] != b"{":
            return
        if end + 1 < len(self._body) and isinstance(_load(bytes(self._body[:end])), dict):
            lines = bytes(self._body)
            self._body.clear()
            self._format = BodyFormat.LINES
            self._read_lines(lines)

    def _read_lines(self, chunk: bytes) -> None:
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            self._keep(line)
            text = bytes(self._body).strip()
            self._body.clear()
            if self._overflowed:
                self._overflowed, self.first_token = False, True
            elif text:
                self._read_part(text)
        self._keep(rest)

    def _keep(self, part: bytes) -> None:
        if self._overflowed or len(self._body) + len(part) > MAX_DOCUMENT_BYTES:
            self._overflowed = True
            self._body.clear()
        else:
            self._body += part

    def _document(self) -> None:
        """Read a body that came in one piece; its first token is known only at its end."""
        if self._overflowed:
            self.first_token = True
            return
        document = _load(bytes(self._body))
        if document is None and not _is_text(self._body):
            self._give_up()
            return
        if isinstance(document, dict):
            self._read(document)
            self._promises = not self.failed and is_promise(document)
        self.first_token = not self.failed and not self._promises and is_answer(document)

    def _read_plain(self, document: dict[str, Any], says: PlainChunk) -> None:
        self._ended = self._ended or says.is_end
        self.first_token = self.first_token or (not self.failed and says.is_token)
        if document.get("usage"):
            self.usage = self.usage.updated(usage_of(document))
        self.kept = says.kept or self.kept

    def _read(self, document: dict[str, Any]) -> None:
        self.failed = self.failed or is_error(document)
        self._ended = self._ended or is_end(document)
        self.usage = self.usage.updated(usage_of(document))
        self.kept = kept_of(document) or self.kept


def _load(data: bytes) -> Any:
    """Parse JSON; None where *data* is no JSON."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def _is_text(data: bytes | bytearray) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
