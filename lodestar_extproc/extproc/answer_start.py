"""What the body of an answer is, told by its first bytes and, where they are known, its headers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum

_MARK = b"\xef\xbb\xbf"  # UTF-8's byte order mark
_BLANKS = b"\r\n\t "
_FIELDS = (b"data", b"event", b"id", b"retry")
_JSON_START = re.compile(rb'\{[\s"}]|\[[\s\[\]{"0-9tfn-]')
_FIELD_END = re.compile(rb"[:\r\n]")
_BINARY_TYPES = ("audio/", "video/", "image/", "application/octet-stream")
_JUDGED_BYTES = 64  # a file of any kind has bytes that no text has by then; a judgement
_CONTROLS = frozenset(range(32)) - frozenset(b"\t\n\r\f\x1b")


class BodyFormat(StrEnum):
    """How the documents of an answer travel."""

    EVENTS = "events"
    LINES = "lines"
    """A JSON document a line."""
    JSON = "json"
    TEXT = "text"
    """Text of no API: a page."""
    UNREADABLE = "unreadable"


def without_mark(start: bytes) -> bytes:
    """*start* without what may come before any text."""
    return start.removeprefix(_MARK).lstrip(_BLANKS) if start != _MARK[: len(start)] else start


def body_format(
    start: bytes, headers: Mapping[str, str], *, whole: bool = False
) -> BodyFormat | None:
    """The format of a body that begins with *start*; None while that is too short to tell.

    Args:
        headers: those that are known, in lower case.
        whole: nothing follows.
    """
    if not start or (not whole and _MARK.startswith(start)):
        return None
    content_type = headers.get("content-type", "").strip().lower()
    if content_type.startswith(_BINARY_TYPES):
        return BodyFormat.UNREADABLE
    if content_type.startswith("text/event-stream") or _begins_a_field(start):
        return BodyFormat.EVENTS
    if not whole and any(field.startswith(start) for field in (*_FIELDS, b"{", b"[")):
        return None
    return BodyFormat.JSON if _JSON_START.match(start) else _text_or_not(start, whole=whole)


def _begins_a_field(start: bytes) -> bool:
    """Whether it is a comment, or a field's name and what ends that."""
    field = _FIELD_END.split(start, maxsplit=1)[0]
    return field != start and (not field or field in _FIELDS)


def _text_or_not(start: bytes, *, whole: bool) -> BodyFormat | None:
    """Text is UTF-8 without control characters; its last character may be cut.

    It is told by so much of it whatever pieces it comes in; what is no text, as soon as it is seen.
    """
    judged = start[:_JUDGED_BYTES]
    if _CONTROLS.intersection(judged):
        return BodyFormat.UNREADABLE
    try:
        judged.decode()
    except UnicodeDecodeError as error:
        if error.end < len(judged) or len(judged) - error.start > 3:
            return BodyFormat.UNREADABLE
    return BodyFormat.TEXT if whole or len(start) >= _JUDGED_BYTES else None
