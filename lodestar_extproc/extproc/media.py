"""What of a body is media, and what marks a cache: parts of JSON that are no text of a prompt.

A text is never taken for media, whatever it holds: a tokenizer would read it. Only parts that say
what they are, and values of unknown shape, are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

MIN_ENCODED = 256
"""Letters of the base64 alphabet without a blank from here on are data: no word and no digest of
SHA-512 is so long. A judgement."""
LOOK_BYTES = 1024
"""Of a string, so much is looked at."""

_UNSEEN_PARTS = ("redacted_thinking", "thinking", "tool_reference")
"""What engines drop, or take with the message."""
_PAYLOAD_KEYS = (
    "image_url",
    "input_image",
    "image_data",
    "image_embeds",
    "input_audio",
    "audio_url",
    "audio_embeds",
    "audio_data",
    "video_url",
    "input_video",
    "video",
    "video_data",
    "image",
    "audio",
    "file",
    "file_data",
    "file_id",
    "file_url",
    "inline_data",
    "inlineData",
    "prompt_embeds",
    "source",
    "url",
    "data",
    "bytes",
    "uri",
    "result",
)
"""Hold the payload of a part that is known to be media, from the outside in."""
_TELLING_KEYS = frozenset(
    (
        "image_url",
        "image_data",
        "image_embeds",
        "input_audio",
        "audio_url",
        "audio_embeds",
        "audio_data",
        "video_url",
        "video_data",
        "input_video",
        "file_data",
        "inline_data",
        "inlineData",
        "prompt_embeds",
    )
)
"""A part with one of these is media, whatever its type says."""
_TYPES = frozenset(
    (
        "image_url",
        "input_image",
        "image",
        "image_embeds",
        "image_pil",
        "input_audio",
        "audio",
        "audio_url",
        "audio_embeds",
        "video",
        "video_url",
        "input_video",
        "file",
        "input_file",
        "computer_screenshot",
        "image_generation_call",
        "base64",
        "prompt_embeds",
    )
)
_TEXT_SOURCES = ("text", "content")
_ENCODED = re.compile(r"[A-Za-z0-9+/=_\-\r\n]*\Z")
_DATA_URL = re.compile(r"data:[^,\s]{0,200};base64,|data:(?:image|audio|video)/", re.IGNORECASE)
_MARKERS = frozenset(("cache_control", "cachePoint", "cache_point"))
"""Where a cache is to be kept: Anthropic's name, and Amazon's. All begin alike (`json_form.py`)."""
_SCHEMA_TYPES = frozenset(("string", "number", "integer", "object", "array", "boolean", "null"))


def is_cache_marker(key: str, value: object) -> bool:
    """Whether a member only says where a cache is to be kept: it moves from turn to turn.

    A schema may have a property of that name.

    >>> is_cache_marker("cache_control", {"type": "ephemeral"})
    True
    >>> is_cache_marker("cache_control", {"type": "string"})
    False
    """
    if key not in _MARKERS:
        return False
    if not isinstance(value, dict):
        return value is None
    kind = value.get("type")
    return isinstance(kind, str) and kind not in _SCHEMA_TYPES


def is_encoded(text: str) -> bool:
    """Whether *text*, of unknown meaning, is data in base64; its beginning is enough."""
    if _DATA_URL.match(text):
        return True
    return len(text) >= MIN_ENCODED and _ENCODED.match(text, 0, LOOK_BYTES) is not None


def media_payload(part: Mapping[str, object]) -> object | None:
    """What makes *part* this image, sound or file, and no other; None where it is none of them.

    >>> media_payload({"type": "image_url", "image_url": {"url": "https://a.example/b.png"}})
    'https://a.example/b.png'
    >>> media_payload({"type": "text", "text": "data:image/png;base64,AA"}) is None
    True
    """
    if not _is_media(part):
        return None
    payload: object = part
    while isinstance(payload, dict):
        held = (payload[key] for key in _PAYLOAD_KEYS if payload.get(key))
        inner = next(held, None)
        if inner is None:
            break
        payload = inner
    return payload if isinstance(payload, str) else part


def _is_media(part: Mapping[str, object]) -> bool:
    if not _TELLING_KEYS.isdisjoint(part) and any(part.get(key) for key in _TELLING_KEYS):
        return True
    kind = part.get("type")
    if kind == "document":
        source = part.get("source")
        return not (isinstance(source, dict) and source.get("type") in _TEXT_SOURCES)
    return isinstance(kind, str) and kind in _TYPES and "text" not in part


def is_unseen(part: object) -> bool:
    """Whether a part is no part of the prompt: a mark of a cache, or what engines drop."""
    if not isinstance(part, dict):
        return False
    kind = part.get("type")
    if kind in _UNSEEN_PARTS:
        return True
    return bool(part) and all(is_cache_marker(key, value) for key, value in part.items())
