"""plain_chunk(): what a chunk of the shape that most are says, found in one go.

OpenAI's chat and completion chunks, as vLLM, SGLang and others stream them: an answer has one for
each token. It says what `payload.py` would, and leaves all else to that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from lodestar_extproc.completion import KeptState
from lodestar_extproc.extproc.finish_reasons import is_plain_reason

_KEPT = "chat.completion.chunk"
_OBJECTS = frozenset((_KEPT, "text_completion"))
_KEYS = frozenset(("id", "object", "created", "model", "choices", "usage", "system_fingerprint"))
_CHOICE_KEYS = frozenset(
    ("index", "delta", "text", "finish_reason", "logprobs", "stop_reason", "token_ids")
)
_DELTA_KEYS = frozenset(("role", "content", "reasoning", "reasoning_content"))
_TEXTS = ("content", "reasoning_content", "reasoning")


class PlainChunk(NamedTuple):
    """What it says; it is no error.

    Attributes:
        is_token, is_end, kept: as of `payload.py`.
    """

    is_token: bool
    is_end: bool
    kept: tuple[str, KeptState] | None


def plain_chunk(document: Mapping[str, Any]) -> PlainChunk | None:
    """What *document* says, its usage aside; None where it is of another shape."""
    choices, kind = document.get("choices"), document.get("object")
    if not isinstance(choices, list) or not isinstance(kind, str):
        return None
    if kind not in _OBJECTS or not _KEYS.issuperset(document):
        return None
    is_token = is_end = False
    for choice in choices:
        if not isinstance(choice, dict) or not _CHOICE_KEYS.issuperset(choice):
            return None
        reason = choice.get("finish_reason")
        if reason is not None:
            if not is_plain_reason(reason):
                return None
            is_token = is_end = True
        says = _says(choice)
        if says is None:
            return None
        is_token = is_token or says
    name = document.get("id")
    is_named = kind == _KEPT and isinstance(name, str)
    kept = (name, KeptState.ENDED) if name and is_named else None
    return PlainChunk(is_token, is_end, kept)


def _says(choice: Mapping[str, Any]) -> bool | None:
    """Whether *choice* has content; None where that needs a closer look."""
    delta, text = choice.get("delta"), choice.get("text")
    if text is not None and not isinstance(text, str):
        return None
    if delta is None:
        return bool(text)
    if not isinstance(delta, dict) or not _DELTA_KEYS.issuperset(delta):
        return None
    says = bool(text)
    for name in _TEXTS:
        value = delta.get(name)
        if value:
            if not isinstance(value, str):
                return None
            says = True
    return says
