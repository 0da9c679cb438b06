"""The bytes that stand for a prompt: equal bytes from the start mean equal work for an engine.

It knows the shapes of the APIs' JSON, not what a tokenizer or a chat template makes of them: roles
and separators only keep the order of things, so that a chat's next turn continues this one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import orjson
import xxhash

from lodestar_extproc.request import RequestKind

MAX_ITEMS = 20_000
"""Messages, content parts or prompts in one list; a bound on the time one body can take.

A judgement: twenty times an agent's chat of 1,000 messages.
"""
MEDIA_TOKENS = 576
"""What an image, sound or file stands for: LLaVA-1.5's 24 x 24 patches (arXiv:2310.03744)."""
_TOKEN_BYTES = 4  # of a token id, as `_token_ids` packs it
_MEDIA_DIGESTS = MEDIA_TOKENS * _TOKEN_BYTES // 16  # bytes of an xxh3_128 digest
_ROLE_END = b"\n"
_ITEM_END = b"\x1e"
# What templates render of a message beside its content, and of an item of the Responses API.
_MESSAGE_FIELDS = ("name", "tool_calls", "function_call", "tool_call_id", "arguments", "output")
# Fields that hold the payload of a media part, from the outside in.
_MEDIA_FIELDS = (
    "image_url",
    "input_audio",
    "audio_url",
    "video_url",
    "source",
    "file",
    "url",
    "data",
    "file_data",
    "file_id",
)
# A tuple, not a set: a hostile body's type need not be hashable.
_MEDIA_TYPES = (
    "image_url",
    "input_image",
    "image",
    "input_audio",
    "audio_url",
    "video_url",
    "file",
    "input_file",
    "document",
)


class InvalidRequest(ValueError):  # noqa: N818  (the condition's name)
    """The body is no inference request; the message says why, in the client's terms."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One sequence an engine computes.

    Attributes:
        data: its bytes; token ids as 4 bytes each, little-endian.
        tokens: exact where the client sent token ids, else None.
    """

    data: bytes
    tokens: int | None = None


def prompts(kind: RequestKind, body: Mapping[str, Any]) -> tuple[Prompt, ...]:
    """The sequences that *body* asks an engine to compute; none where nothing in it is readable.

    Raises:
        InvalidRequest: more than MAX_ITEMS items, nested too deeply, or token ids out of range.
    """
    return _READERS[kind](body)


def _chat(body: Mapping[str, Any]) -> tuple[Prompt, ...]:
    out = _tools(body)
    # Anthropic's system prompt stands beside the messages, OpenAI's is the first of them.
    _content(out, body.get("system"))
    for message in _items(body.get("messages")):
        _message(out, message)
    return (Prompt(b"".join(out)),)


def _responses(body: Mapping[str, Any]) -> tuple[Prompt, ...]:
    out = _tools(body)
    _content(out, body.get("instructions"))
    given = body.get("input")
    if isinstance(given, str):
        _message(out, {"role": "user", "content": given})
    else:
        for item in _items(given):
            _message(out, item)
    return (Prompt(b"".join(out)),)


def _completions(body: Mapping[str, Any]) -> tuple[Prompt, ...]:
    return _sequences(body.get("prompt"))


def _embeddings(body: Mapping[str, Any]) -> tuple[Prompt, ...]:
    if "messages" in body:
        return _chat(body)
    return _sequences(body.get("input"))


def _any(body: Mapping[str, Any]) -> tuple[Prompt, ...]:
    """Read a body by its shape, where the path is not known."""
    if "messages" in body:
        return _chat(body)
    return _completions(body) if "prompt" in body else _responses(body)


_READERS: Mapping[RequestKind, Callable[[Mapping[str, Any]], tuple[Prompt, ...]]] = (
    MappingProxyType(
        {
            RequestKind.CHAT_COMPLETIONS: _chat,
            RequestKind.COMPLETIONS: _completions,
            RequestKind.RESPONSES: _responses,
            RequestKind.EMBEDDINGS: _embeddings,
            RequestKind.MESSAGES: _chat,
            RequestKind.UNKNOWN: _any,
        }
    )
)


def _sequences(given: object) -> tuple[Prompt, ...]:
    """Read a string, a list of token ids, or a batch of either."""
    if isinstance(given, str):
        return (Prompt(given.encode()),)
    if not isinstance(given, list) or not given:
        return ()
    if isinstance(given[0], int):
        return (_token_ids(given),)
    return tuple(
        Prompt(item.encode()) if isinstance(item, str) else _token_ids(item)
        for item in _items(given)
    )


def _token_ids(given: object) -> Prompt:
    if not isinstance(given, list):
        raise InvalidRequest("a prompt must be a string, a list of token ids, or a list of those")
    try:
        data = struct.pack(f"<{len(given)}I", *given)
    except struct.error:
        raise InvalidRequest("token ids must be integers from 0 to 4294967295") from None
    return Prompt(data, tokens=len(given))


def _tools(body: Mapping[str, Any]) -> list[bytes]:
    """The start of a prompt: templates render tools before the conversation."""
    tools = body.get("tools") or body.get("functions")
    return [_dump(tools), _ITEM_END] if tools else []


def _message(out: list[bytes], message: object) -> None:
    if not isinstance(message, dict):
        _content(out, message)
        return
    role = message.get("role") or message.get("type")
    if isinstance(role, str):
        out.append(role.encode())
    out.append(_ROLE_END)
    content = message.get("content")
    if isinstance(content, str):
        out.append(content.encode())
    else:
        for part in _items(content):
            _part(out, part)
    for field in _MESSAGE_FIELDS:
        value = message.get(field)
        if value:
            out.append(_dump(value))
    out.append(_ITEM_END)


def _content(out: list[bytes], content: object) -> None:
    """Add a text, or a list of parts, that has no role of its own."""
    if isinstance(content, str):
        out.append(content.encode())
    else:
        for part in _items(content):
            _part(out, part)
    if content:
        out.append(_ITEM_END)


def _part(out: list[bytes], part: object) -> None:
    if not isinstance(part, dict):
        out.append(_dump(part))
        return
    text = part.get("text")
    if isinstance(text, str):
        out.append(text.encode())
    elif part.get("type") in _MEDIA_TYPES:
        # The payload itself would count as text many times its size in tokens.
        out.append(_media_digest(part) * _MEDIA_DIGESTS)
    else:
        # Cache markers move from turn to turn and are no part of the prompt.
        out.append(_dump({key: part[key] for key in part if key != "cache_control"}))


def _media_digest(part: Mapping[str, Any]) -> bytes:
    payload: object = part
    while isinstance(payload, dict):
        payload = next((payload[field] for field in _MEDIA_FIELDS if payload.get(field)), None)
    data = payload.encode() if isinstance(payload, str) else _dump(part)
    return xxhash.xxh3_128_digest(data)


def _items(given: object) -> Iterable[object]:
    if not isinstance(given, list):
        return ()
    if len(given) > MAX_ITEMS:
        raise InvalidRequest(f"a list of {len(given)} items; at most {MAX_ITEMS} are read")
    return given


def _dump(value: object) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:
        raise InvalidRequest("a part of the body is nested too deeply") from None
