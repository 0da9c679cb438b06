"""What one JSON document of an answer says: a token, an end, an error, usage.

It knows the answers of OpenAI's chat, completions and responses and of Anthropic's messages, and
the plain forms of other engines; not how documents travel (`answer.py` does).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lodestar_extproc.completion import KeptState
from lodestar_extproc.extproc.finish_reasons import is_own_reason, says_nothing

_NO_CONTENT = frozenset(
    # What accompanies content, and a user sees nothing of it.
    (
        *("role", "type", "index", "id", "item_id", "object", "status", "expires_at", "format"),
        *("created", "logprobs", "usage", "provider_specific_fields", "output_index"),
        *("content_index", "matched_stop", "stop_reason", "finish_reason", "prompt_token_ids"),
        *("token_ids", "signature", "channel"),
    )
)
_PLAIN_TEXTS = ("text", "content", "response", "token", "generated_text", "text_output")
"""Where engines with an API of their own put what they generated (TGI, SGLang, Triton)."""
_IDS = ("output_ids", "token_ids")
"""Token ids in place of text: SGLang's without a tokenizer, vLLM's own."""
_ANSWERS = (
    *(*_PLAIN_TEXTS, "choices", "output", "outputs", "data", "embedding", "embeddings"),
    *("results", "predictions", "scores", "score", "tokens", "candidates", "completion"),
    # A response that goes on in the background has an id and a state, and no output yet.
    *("output_text", "input_tokens", "count", "labels", "segments", *_IDS),
)
"""What a document that answers some inference request holds at its top."""
_FAILED_STATES = frozenset(("failed", "error", "cancelled", "canceled", "aborted", "timeout"))
_KEPT_OBJECTS = frozenset(
    (
        *("response", "conversation", "chat.completion", "chat.completion.chunk", "video"),
        *("batch", "file", "upload", "thread", "container", "vector_store"),
    )
)
"""What an `object` with an id is, where engines may keep it under that id."""
_RUNNING_STATES = frozenset(("queued", "in_progress", "validating", "finalizing", "cancelling"))
_ENDED_STATES = ("completed", "incomplete", "failed", "cancelled", "expired")
_DEEPEST = 8
"""Levels at which content is looked for: three more than any API has. What is deeper is content."""
_SILENT_BLOCKS = ("text", "thinking", "message", "reasoning")


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


# -- errors and ends ------------------------------------------------------------------------------


def is_error(document: Mapping[str, Any]) -> bool:
    """Whether the engine reports a failure, under whatever status.

    An end for a reason that is no model's own is one: the engine aborted, or was told to.

    >>> is_error({"choices": [{"delta": {}, "finish_reason": "abort"}]})
    True
    >>> is_error({"choices": [{"delta": {}, "finish_reason": "length"}]})
    False
    """
    if document.get("error") or document.get("errors") or document.get("object") == "error":
        return True
    response = document.get("response")
    states = [document.get("type"), document.get("status")]
    if isinstance(response, dict):
        states.append("error" if response.get("error") else response.get("status"))
    if any(isinstance(s, str) and s.rpartition(".")[2].lower() in _FAILED_STATES for s in states):
        return True
    return any(
        choice.get("error") for choice in _choices(document) if isinstance(choice, dict)
    ) or any(not is_own_reason(reason) for reason in _reasons(document))


def is_end(document: Mapping[str, Any]) -> bool:
    """Whether the generation, or its stream, ends with this event, well or badly."""
    kind = document.get("type")
    if isinstance(kind, str) and kind in ("message_stop", "response.completed"):
        return True
    return bool(_reasons(document)) or document.get("done") is True or document.get("stop") is True


def _reasons(document: Mapping[str, Any]) -> list[object]:
    """Why it ended, as often as it says so."""
    response, kind = document.get("response"), document.get("type")
    holders = [document, *_choices(document), document.get("delta"), document.get("meta_info")]
    holders.append(document.get("details"))
    found = [
        holder[name]
        for holder in holders
        if isinstance(holder, dict)
        for name in ("finish_reason", "finishReason", "done_reason")
        if not says_nothing(holder.get(name))
    ]
    # vLLM puts the stop token or string that was met into a choice's `stop_reason`; Anthropic's
    # messages, whole or streamed, put the reason there.
    if kind in ("message", "message_delta"):
        found += [
            holder["stop_reason"]
            for holder in (document, document.get("delta"))
            if isinstance(holder, dict) and holder.get("stop_reason")
        ]
    for holder in (document, response):
        if isinstance(holder, dict) and isinstance(holder.get("incomplete_details"), dict):
            found.append(holder["incomplete_details"].get("reason") or "incomplete")
    return found


def _choices(document: Mapping[str, Any]) -> list[Any]:
    choices = document.get("choices") or document.get("candidates")
    return choices if isinstance(choices, list) else []


# -- what is kept ---------------------------------------------------------------------------------


def kept_of(document: Mapping[str, Any]) -> tuple[str, KeptState] | None:
    """The name and state of what *document* says that its engine keeps; None for nothing.

    >>> kept_of({"id": "resp_1", "object": "response", "status": "queued"})
    ('resp_1', <KeptState.RUNNING: 'running'>)
    """
    response = document.get("response")
    held = response if isinstance(response, dict) else document
    name, kind, state = held.get("id"), held.get("object"), held.get("status")
    if not isinstance(name, str) or not name:
        return None
    if held.get("deleted") is True:
        return name, KeptState.GONE
    is_running = isinstance(state, str) and state in _RUNNING_STATES
    is_known = state in _ENDED_STATES or (isinstance(kind, str) and kind in _KEPT_OBJECTS)
    if not is_running and not is_known:
        return None
    return name, KeptState.RUNNING if is_running else KeptState.ENDED


def is_promise(document: Mapping[str, Any]) -> bool:
    """Whether a whole document is no answer yet, but says that one is being computed.

    >>> is_promise({"id": "resp_1", "object": "response", "status": "queued", "output": []})
    True
    """
    kept = kept_of(document)
    return kept is not None and kept[1] is KeptState.RUNNING and not document.get("output")


# -- content ------------------------------------------------------------------------------------


def is_token(event: Mapping[str, Any]) -> bool:
    """Whether a streamed event holds generated content, or the end of a generation.

    >>> is_token({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
    False
    >>> is_token({"choices": [{"delta": {"content": "Hi"}}]})
    True
    """
    if any(is_own_reason(reason) for reason in _reasons(event)):
        # A generation that ends without any text has still had a first token: its end.
        return True
    choices = _choices(event)
    if choices:
        return any(_is_choice_token(choice) for choice in choices if isinstance(choice, dict))
    kind = event.get("type")
    if isinstance(kind, str):
        return _is_typed_token(kind, event)
    texts = (*(event.get(name) for name in _PLAIN_TEXTS), _message(event))
    return any(map(_has_content, texts)) or any(event.get(name) for name in _IDS)


def _message(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Ollama's; a text of that name is of whoever reports that something is wrong."""
    message = document.get("message")
    return message if isinstance(message, dict) else None


def is_answer(document: object) -> bool:
    """Whether a whole document answers an inference request, of whatever API.

    >>> is_answer({"status": "ok"}), is_answer({"data": [{"embedding": [0.5]}]})
    (False, True)
    """
    if isinstance(document, list):
        return bool(document)
    if not isinstance(document, dict):
        return False
    if isinstance(document.get("choices"), list):
        return any(
            _is_choice_token(choice) or "message" in choice
            for choice in document["choices"]
            if isinstance(choice, dict)
        ) or bool(_reasons(document))
    if document.get("object") == "response" and document.get("id"):
        return True
    return _message(document) is not None or any(
        document.get(name) is not None for name in _ANSWERS
    )


def _is_choice_token(choice: Mapping[str, Any]) -> bool:
    return any(_has_content(choice.get(name)) for name in ("text", "delta", "message", "content"))


def _is_typed_token(kind: str, event: Mapping[str, Any]) -> bool:
    if kind.endswith((".delta", "-delta")):  # Cohere's have a dash
        return _has_content(event.get("delta"))
    if kind.endswith((".done", ".partial_image")):
        return any(
            bool(event.get(name))
            for name in ("text", "refusal", "arguments", "transcript", "partial_image_b64", "input")
        )
    if kind in ("content_block_start", "response.output_item.added"):
        block = event.get("content_block") or event.get("item")
        # A call, of whatever tool, is seen when it begins.
        return isinstance(block, dict) and (
            block.get("type") not in _SILENT_BLOCKS or _has_content(block)
        )
    if kind == "content_block_delta":
        return _has_content(event.get("delta"))
    return kind == "response.completed"


def _has_content(value: object, depth: int = 0) -> bool:
    """Whether a text stands anywhere in it that a user would see."""
    if isinstance(value, str):
        return bool(value)
    if depth > _DEEPEST or not isinstance(value, list | dict):
        return depth > _DEEPEST
    if isinstance(value, list):
        return any(_has_content(item, depth + 1) for item in value)
    return any(
        _has_content(item, depth + 1) for name, item in value.items() if name not in _NO_CONTENT
    )


# -- usage ----------------------------------------------------------------------------------------


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
