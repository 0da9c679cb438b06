"""The JSON of answers, whole or as server-sent events, byte by byte as vLLM sends them.

It knows no engine. What stays the same from token to token is built once.
"""

from __future__ import annotations

from typing import Any

import orjson

from lodestar_extproc.simulator.api import CompletionCall

_TEXT = b"\x00"
"""Stands where the text goes; JSON never holds it."""
DONE = b"data: [DONE]\n\n"


class AnswerFormat:
    """The shape of one request's answer."""

    def __init__(self, call: CompletionCall, answer_id: str, model: str, created_s: int) -> None:
        self._call = call
        prefix = "chatcmpl-" if call.chat else "cmpl-"
        self._head = {"id": prefix + answer_id, "created": created_s, "model": model}
        self._before, self._after = self._template(finish=None)

    def role(self) -> bytes:
        """A chat stream's first event; it comes together with the first token."""
        if not self._call.chat:
            return b""
        choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        return self._event([choice])

    def text(self, text: str) -> bytes:
        """An event with some tokens; *text* needs no escaping in JSON."""
        return self._before + text.encode() + self._after

    def last(self, text: str, cached_tokens: int) -> bytes:
        """The event with the last tokens, and all that follows it."""
        before, after = self._template(finish="length")
        usage = b""
        if self._call.include_usage:
            usage = self._event([], usage=self._usage(cached_tokens))
        return before + text.encode() + after + usage + DONE

    def whole(self, text: str, cached_tokens: int) -> bytes:
        """The body of an answer that is not streamed."""
        message = {"message": {"role": "assistant", "content": text}}
        content = message if self._call.chat else {"text": text}
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": "length"}
        kind = "chat.completion" if self._call.chat else "text_completion"
        body = self._head | {"object": kind, "choices": [choice]}
        return orjson.dumps(body | {"usage": self._usage(cached_tokens)})

    def _usage(self, cached_tokens: int) -> dict[str, Any]:
        prompt, output = self._call.prompt_tokens, self._call.max_tokens
        return {
            "prompt_tokens": prompt,
            "total_tokens": prompt + output,
            "completion_tokens": output,
            "prompt_tokens_details": {"cached_tokens": cached_tokens},
        }

    def _template(self, finish: str | None) -> tuple[bytes, bytes]:
        """An event with text, split where the text goes."""
        mark = _TEXT.decode()
        delta = {"delta": {"content": mark}}
        content = delta if self._call.chat else {"text": mark}
        event = self._event([{"index": 0, **content, "logprobs": None, "finish_reason": finish}])
        before, _, after = event.partition(orjson.dumps(mark)[1:-1])
        return before, after

    def _event(self, choices: list[dict[str, Any]], **more: object) -> bytes:
        kind = "chat.completion.chunk" if self._call.chat else "text_completion"
        body = self._head | {"object": kind, "choices": choices} | more
        return b"data: " + orjson.dumps(body) + b"\n\n"
