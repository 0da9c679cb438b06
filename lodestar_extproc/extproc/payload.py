"""What one JSON document of an answer says: a token, an error, usage.

It knows the answers of OpenAI's chat, completions and responses and of Anthropic's messages; not
how documents travel (`answer.py` does).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_DELTA_TEXTS = ("content", "reasoning_content", "reasoning", "refusal")
_DELTA_ITEMS = ("tool_calls", "function_call", "audio")
# A generation that ends without any text has still had a first token: its end.
_ENDS = frozenset(("response.completed", "response.incomplete"))


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens an engine counted; None where it did not say."""

    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None

    def updated(self, later: Usage) -> Usage:
        """Replace earlier figures by *later* ones; a figure that it leaves out stays."""
        return Usage(
            _either(later.prompt_tokens, self.prompt_tokens),
            _either(later.output_tokens, self.output_tokens),
            _either(later.cached_tokens, self.cached_tokens),
        )


NO_USAGE = Usage()


def is_error(document: Mapping[str, Any]) -> bool:
    """Whether the engine reports a failure, under whatever status."""
    kind = document.get("type")
    return (
        bool(document.get("error"))
        or document.get("object") == "error"
        or kind in ("error", "response.failed")
    )


def is_token(event: Mapping[str, Any]) -> bool:
    """Whether a streamed event holds generated content, or the end of a generation.

    >>> is_token({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
    False
    >>> is_token({"choices": [{"delta": {"content": "Hi"}}]})
    True
    """
    choices = event.get("choices")
    if isinstance(choices, list):
        return any(_is_choice_token(choice) for choice in choices if isinstance(choice, dict))
    kind = event.get("type")
    return isinstance(kind, str) and _is_typed_token(kind, event)


def _is_choice_token(choice: Mapping[str, Any]) -> bool:
    if choice.get("text") or choice.get("finish_reason"):
        return True
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        return False
    return any(delta.get(name) for name in (*_DELTA_TEXTS, *_DELTA_ITEMS))


def _is_typed_token(kind: str, event: Mapping[str, Any]) -> bool:
    delta = event.get("delta")
    if kind.endswith(".delta"):
        return bool(delta)
    if kind == "content_block_start":
        block = event.get("content_block")
        return isinstance(block, dict) and block.get("type") == "tool_use"
    if kind == "content_block_delta" and isinstance(delta, dict):
        return any(value for name, value in delta.items() if name != "type")
    if kind == "message_delta" and isinstance(delta, dict):
        return bool(delta.get("stop_reason"))
    return kind in _ENDS


def usage_of(document: Mapping[str, Any]) -> Usage:
    """The usage that *document* reports, wherever its API puts it."""
    for holder in (document, document.get("response"), document.get("message")):
        if isinstance(holder, dict) and isinstance(holder.get("usage"), dict):
            return _usage(holder["usage"])
    return NO_USAGE


def _usage(given: Mapping[str, Any]) -> Usage:
    output = _either(_count(given, "completion_tokens"), _count(given, "output_tokens"))
    prompt = _count(given, "prompt_tokens")
    if prompt is not None:
        return Usage(prompt, output, _count(given.get("prompt_tokens_details"), "cached_tokens"))
    prompt, read = _count(given, "input_tokens"), _count(given, "cache_read_input_tokens")
    if read is None:
        return Usage(prompt, output, _count(given.get("input_tokens_details"), "cached_tokens"))
    # Anthropic's input_tokens leave out what was read from and written to the cache.
    written = _count(given, "cache_creation_input_tokens") or 0
    return Usage(None if prompt is None else prompt + read + written, output, read)


def _count(given: object, name: str) -> int | None:
    value = given.get(name) if isinstance(given, dict) else None
    return value if type(value) is int and value >= 0 else None


def _either(first: int | None, second: int | None) -> int | None:
    return second if first is None else first
