"""plain_message(): a message of the shapes that most are, written in one go.

A role and a text, a tool's result, an answer with calls: an agent's prompt of a megabyte has a
thousand of them. It writes what `MessageWriter` would, and leaves all else to that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from lodestar_extproc.extproc.canonical import FIELD, MESSAGE_END, PART_END
from lodestar_extproc.extproc.json_form import json_form

MAX_ARGUMENTS_BYTES = 64 * 2**10
"""Arguments of a call are read as JSON, as vLLM does, up to here; longer ones count as they are."""
MAX_CALLS = 64
"""More are looked at one by one, within the budget."""

NO_ARGUMENTS = b"{}"

_KEYS = frozenset(("role", "content", "name", "tool_call_id", "tool_calls"))
_TEXTS = (("name", FIELD + b"name"), ("tool_call_id", FIELD + b"tool_call_id"))
_CALLS = FIELD + b"tool_calls"


def plain_message(message: Mapping[str, Any]) -> bytes | None:
    """*message* as it is hashed; None where it is of another shape."""
    role, content = message.get("role"), message.get("content")
    if not role or not isinstance(role, str) or not _KEYS.issuperset(message):
        return None
    if len(message) == 2 and isinstance(content, str):  # as most are of a chat
        start = role.encode("utf-8", "surrogatepass")
        text = content.encode("utf-8", "surrogatepass")
        return b"".join((start, FIELD, text, MESSAGE_END))
    pieces = [_utf8(role), FIELD]
    if isinstance(content, str):
        pieces.append(_utf8(content))
    elif content is not None:
        return None
    if len(message) > 1 + ("content" in message):
        rest = _rest(message)
        if rest is None:
            return None
        pieces += rest
    pieces.append(MESSAGE_END)
    return b"".join(pieces)


def _rest(message: Mapping[str, Any]) -> list[bytes] | None:
    """What stands beside role and content, in the order of its names."""
    pieces: list[bytes] = []
    for key, mark in _TEXTS:
        value = message.get(key)
        if value:
            if not isinstance(value, str):
                return None
            pieces += mark, _utf8(value)
    calls = message.get("tool_calls")
    if not calls:
        return pieces
    if not isinstance(calls, list) or len(calls) > MAX_CALLS:
        return None
    pieces.append(_CALLS)
    for call in calls:
        written = _call(call)
        if written is None:
            return None
        pieces.append(written)
    return pieces


def _call(call: object) -> bytes | None:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict):
        return None
    name, call_id, arguments = function.get("name"), call.get("id"), function.get("arguments")
    if not (isinstance(name, str) and isinstance(call_id, str)):
        return None
    written = _arguments(arguments)
    if written is None:
        return None
    return b"".join((_utf8(name), FIELD, _utf8(call_id), FIELD, written, PART_END))


def _arguments(given: object) -> bytes | None:
    """VLLM makes an object of them, of nothing an empty one; what is none stays as it is."""
    if isinstance(given, str):
        if not given:
            return NO_ARGUMENTS
        if "{" not in given[:8] or len(given) > MAX_ARGUMENTS_BYTES:
            return _utf8(given)
        try:
            given = orjson.loads(given)
        except orjson.JSONDecodeError:
            return None
    return json_form(given) if isinstance(given, (dict, list)) else None


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
