"""What a body says of state that its engine keeps: what it continues, and what is kept of it.

It knows the names that the Responses API, stored chats and SGLang's sessions have for it; not where
any of it is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xxhash

from lodestar_extproc.extproc.json_text import is_false, is_true
from lodestar_extproc.extproc.long_strings import LongStrings
from lodestar_extproc.request import BLOCK_BYTES, Keeping, RequestKind, name_key

_CONVERSATIONS = ("conversation", "session_params")
"""A text, or an object with an `id`: of OpenAI's conversations, and of SGLang's sessions."""
_FIELDS = frozenset(("store", "previous_response_id", *_CONVERSATIONS))


def continued_name(fields: Mapping[str, Any]) -> str:
    """The name of what the prompt goes on from; empty for nothing."""
    return _previous(fields) or _conversation(fields)


def read(
    fields: Mapping[str, Any], kind: RequestKind, strings: LongStrings, head: bytes
) -> Keeping | None:
    """What *fields* ask an engine to continue or to keep; None for nothing.

    Args:
        head: what of the prompt stands before all turns.
    """
    if kind is not RequestKind.RESPONSES and _FIELDS.isdisjoint(fields):
        return None
    keeps_answer = _keeps_answer(fields, kind)
    name = continued_name(fields)
    if not name and not keeps_answer:
        return None
    return Keeping(
        continues=name_key(strings.text(name)) if name else None,
        is_conversation=bool(name) and not _previous(fields),
        keeps_answer=keeps_answer,
        in_background=keeps_answer and is_true(fields.get("background")),
        head_key=xxhash.xxh3_64_intdigest(head) if head else 0,
        head_bytes=len(head),
        head_blocks=len(head) // BLOCK_BYTES,
    )


def _keeps_answer(fields: Mapping[str, Any], kind: RequestKind) -> bool:
    """Responses are kept unless the client asks that they are not, chats where it asks for it."""
    if kind is RequestKind.RESPONSES:
        return not is_false(fields.get("store"))
    return kind is RequestKind.CHAT_COMPLETIONS and is_true(fields.get("store"))


def _previous(fields: Mapping[str, Any]) -> str:
    return _text(fields.get("previous_response_id"))


def _conversation(fields: Mapping[str, Any]) -> str:
    for field in _CONVERSATIONS:
        given = fields.get(field)
        name = _text(given.get("id") if isinstance(given, dict) else given)
        if name:
            return name
    return ""


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
