"""MessageWriter: messages, as chat templates render them.

What a template reads by name is written in one order, whatever the client's; what it renders as
JSON in the client's. Names are those of OpenAI's, Anthropic's and vLLM's APIs.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from lodestar_extproc.extproc.canonical import (
    FIELD,
    MESSAGE_END,
    PART_END,
    Inexact,
    PromptWriter,
    Source,
)
from lodestar_extproc.extproc.json_text import InvalidRequest, load
from lodestar_extproc.extproc.media import is_cache_marker, is_unseen, media_payload
from lodestar_extproc.extproc.plain_message import MAX_ARGUMENTS_BYTES, plain_message
from lodestar_extproc.extproc.response_items import seen_of_item

BILLING = "x-anthropic-billing-header"
"""Claude Code begins a text of its system prompt so, with a hash of each request; vLLM drops such
texts (vllm#36829)."""
STEP_BYTES = 32 * 2**10
"""Plain messages of a step: some thirty of an agent's, a tenth of a millisecond."""
_REASONING = ("reasoning", "reasoning_content", "thinking")
_REASONING_FIELDS = frozenset(_REASONING)
_SEEN_FIELDS = frozenset(
    (
        "name",
        "tool_calls",
        "function_call",
        "tool_call_id",
        "call_id",
        "arguments",
        "input",
        "output",
        "action",
        "summary",
        "refusal",
        "results",
        "queries",
        "code",
        "outputs",
        "audio",
        "result",
        "prefix",
        "partial",
        "tools",
    )
)
"""What templates render of a message beside its content, and of an item of the Responses API."""
_TEXTS = ("text", "refusal", "thinking", "reasoning")
_UNSEEN = frozenset(
    ("id", "type", "index", "status", "signature", "citations", "annotations", "logprobs")
)
"""Of a part: what no template renders."""

Work = Generator[None, None, None]


class MessageWriter:
    """Writes one conversation.

    Args:
        drops_billing: as the engine does with Anthropic's messages.
        has_images: messages may have images beside their content, as Ollama's do.
    """

    def __init__(
        self, source: Source, *, drops_billing: bool = False, has_images: bool = False
    ) -> None:
        self.writer = PromptWriter(source)
        self._drops_billing, self._has_images = drops_billing, has_images

    def system(self, content: object) -> None:
        """A system prompt, or instructions, that stand beside the messages."""
        if not content:
            return
        before = self.writer.text_bytes + self.writer.n_media
        for part in [content] if isinstance(content, str) else self._items(content):
            if isinstance(content, str) or not self._is_billing(part):
                self._part(part)
        if self.writer.text_bytes + self.writer.n_media > before:
            self.writer.mark(MESSAGE_END)

    def conversation(self, messages: object) -> Work:
        """All messages, or items of the Responses API."""
        n_bytes = 0
        for message in self.writer.items(messages):
            if isinstance(message, dict) and (n_written := self._plain(message)):
                n_bytes += n_written
                if n_bytes > STEP_BYTES:
                    n_bytes = 0
                    yield
                continue
            self.writer.step()
            if not isinstance(message, dict):
                self._part(message)
            elif (payload := media_payload(message)) is not None:
                self.writer.media(payload)
            else:
                content = self._begin(message)
                if isinstance(content, str):  # as most are: no steps of its own
                    self.writer.text(content)
                else:
                    yield from self.parts(content)
                self._fields(message)
                if self._has_images:
                    self.images(message.get("images"))
            self.writer.mark(MESSAGE_END)
            yield

    def images(self, images: object) -> None:
        """What stands beside a text."""
        for image in filter(None, self._items(images)):
            self.writer.media(image)

    def parts(self, parts: object) -> Work:
        """A text, or parts of a message."""
        if isinstance(parts, str):
            self.writer.text(parts)
            return
        if isinstance(parts, dict):
            parts = [parts]
        parted = False
        for part in self.writer.steps(parts):
            if is_unseen(part):
                continue
            if parted:
                self.writer.mark(b"\n")
            parted = True
            self._part(part)
            yield

    def _plain(self, message: Mapping[str, Any]) -> int:
        """Write *message* in one go; how many bytes, 0 where it is not written so."""
        form = None if self._drops_billing else plain_message(message)
        return len(form) if form is not None and self.writer.written(form) else 0

    def _begin(self, message: Mapping[str, Any]) -> object:
        """Write what comes before the content of *message*; returns the content."""
        role = message.get("role") or message.get("type")
        content = message.get("content")
        if role == "system" and self._drops_billing:
            content = self._without_billing(content)
        if isinstance(role, str):
            self.writer.text(role)
        self.writer.mark(FIELD)
        self._reasoning(message, content)
        return content

    def _fields(self, message: Mapping[str, Any]) -> None:
        """What templates render of *message* after its content."""
        of_message = message.get("role") or message.get("type") in (None, "message")
        seen = _SEEN_FIELDS.intersection(message) if of_message else seen_of_item(message)
        for name in sorted(seen):
            if message[name]:
                self.writer.mark(FIELD + name.encode())
                self._field(name, message[name])

    def _reasoning(self, message: Mapping[str, Any], content: object) -> None:
        """Reasoning of an earlier turn; in OpenAI's form a field, in Anthropic's parts."""
        if not isinstance(content, list) and _REASONING_FIELDS.isdisjoint(message):
            return
        given = next((message[name] for name in _REASONING if message.get(name)), None)
        texts = [given] if isinstance(given, str) else []
        if not texts and isinstance(content, list):
            parts = (p.get("thinking") for p in content if isinstance(p, dict))
            texts = [text for text in parts if isinstance(text, str) and text]
        for text in texts:
            self.writer.text(text)
        if texts:
            self.writer.mark(FIELD + b"reasoning")
            self.writer.is_plain = False  # many templates drop that of earlier turns

    def _field(self, name: str, value: object) -> None:
        if name == "tool_calls":
            for call in self._items(value):
                self._call(call)
        elif name in ("arguments", "input"):
            self._arguments(value)
        elif name == "function_call":
            self._call(value)
        else:
            self._value(value)

    def _value(self, value: object) -> None:
        """A text, parts, or anything."""
        if isinstance(value, list):
            for part in self._items(value):
                self._part(part)
                self.writer.mark(PART_END)
        elif isinstance(value, dict):
            self._part(value)
        else:
            self.writer.value(value)

    def _call(self, call: object) -> None:
        """A call of a tool: its name, its id and its arguments."""
        if not isinstance(call, dict):
            self.writer.sorted_value(call)
            return
        function = call.get("function")
        inner = function if isinstance(function, dict) else call
        for value in (inner.get("name"), call.get("id")):
            self.writer.value(value)
            self.writer.mark(FIELD)
        self._arguments(inner.get("arguments", inner.get("input")))
        self.writer.mark(PART_END)

    def _arguments(self, given: object) -> None:
        """VLLM makes an object of them; what is none stays as it is."""
        value, text = given, ""
        if isinstance(given, str):
            text = self.writer.whole(given, MAX_ARGUMENTS_BYTES) or ""
        if "{" in text[:8]:
            try:
                value = load(text.encode("utf-8", "surrogatepass"))
            except InvalidRequest:
                value = given
        try:
            self.writer.value(value or {})
        except Inexact:
            if value is not given:
                self.writer.value(given)
                return
            raise

    def _part(self, part: object) -> None:
        out = self.writer
        if isinstance(part, str):
            out.text(part)
            return
        if not isinstance(part, dict):
            out.sorted_value(part)
            return
        text = next((part[name] for name in _TEXTS if isinstance(part.get(name), str)), None)
        if text is not None:
            if part.get("type") != "thinking":  # its message has it
                out.text(text)
            return
        payload = media_payload(part)
        if payload is not None:
            out.media(payload)
            return
        if part.get("type") == "tool_use":
            self._call(part)
            return
        self._unknown(part)

    def _unknown(self, part: Mapping[str, Any]) -> None:
        """A part that holds others, like a tool's result, or that we do not know: all of it."""
        self.writer.spend(len(part))
        self.writer.is_plain = False
        kind = part.get("type")
        if isinstance(kind, str):
            self.writer.text(kind)
        for key in sorted(part):
            value = part[key]
            if key in _UNSEEN or value is None or is_cache_marker(key, value):
                continue
            self.writer.mark(FIELD)
            self.writer.text(key)
            self.writer.mark(FIELD)
            if key == "content" and isinstance(value, list):
                for each in self._items(value):
                    self._part(each)
                    self.writer.mark(b"\n")
            elif key == "source" and isinstance(value, dict) and isinstance(value.get("data"), str):
                self.writer.text(value["data"])  # a text: media are no unknown parts
            elif key in ("content", "title", "name", "description", "output"):
                self._value(value)
            else:
                self.writer.sorted_value(value)

    def _without_billing(self, content: object) -> object:
        if isinstance(content, str):
            return "" if self.writer.starts_with(content, BILLING) else content
        if isinstance(content, list):
            return [part for part in content if not self._is_billing(part)]
        return content

    def _is_billing(self, part: object) -> bool:
        text = part.get("text") if isinstance(part, dict) else part
        return (
            self._drops_billing and isinstance(text, str) and self.writer.starts_with(text, BILLING)
        )

    def _items(self, given: object) -> list[Any]:
        if not isinstance(given, list):
            return []
        self.writer.spend(len(given))
        return given
