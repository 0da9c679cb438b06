"""OpenAI's completions API as vLLM speaks it: a client's body in, the work it asks for out.

It knows neither engines nor sockets. Prompts are rendered by a template of its own, one in which a
chat's next turn continues the bytes of this turn and its answer; text counts 4 bytes a token.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import xxhash
from numpy.typing import NDArray

from lodestar_extproc.request import hash_blocks

TOKEN_BYTES = 4  # a simulated token is four letters: about what English text has
DEFAULT_MAX_TOKENS = 128  # where a call sets no limit; vLLM would fill its context
_WORDS = tuple(f"{a}{b}{c} " for a in "bdfghklmnprstvwxz" for b in "aeiou" for c in "bdgklmnprst")
"""Answers are made of these: one token each, nothing that JSON escapes."""


class InvalidCallError(Exception):
    """A request that is answered with an error body.

    Attributes:
        status: HTTP status, also the body's code.
        kind: OpenAI's `type`.
    """

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.param = param

    def body(self) -> bytes:
        """The JSON the client gets."""
        error = {"message": str(self), "type": self.kind, "param": self.param, "code": self.status}
        return orjson.dumps({"error": error})


def bad_request(message: str, param: str | None = None) -> InvalidCallError:
    """The client's mistake."""
    return InvalidCallError(400, "BadRequestError", message, param)


def busy() -> InvalidCallError:
    """What vLLM says when its queue is full."""
    return InvalidCallError(503, "ServiceUnavailableError", "The engine is currently busy")


@dataclass(frozen=True, slots=True)
class CompletionCall:
    """What one request asks of the engine.

    Attributes:
        prompt: rendered; token ids as 4 bytes each.
        max_tokens: the answer's exact length: answers never end early.
        include_usage: whether a stream ends with a usage event.
    """

    chat: bool
    prompt: bytes
    prompt_tokens: int
    max_tokens: int
    streaming: bool
    include_usage: bool

    @property
    def digest(self) -> int:
        """Of the prompt."""
        return xxhash.xxh3_64_intdigest(self.prompt)

    def answer(self) -> list[str]:
        """The answer's tokens; they depend on the prompt alone, never on who serves it."""
        n = len(_WORDS)
        start, stride = self.digest % n, 1 + (self.digest >> 32) % (n - 1)
        return [_WORDS[(start + i * stride) % n] for i in range(self.max_tokens)]

    def block_ids(self, answer: list[str]) -> NDArray[np.uint64]:
        """Ids of the full blocks of prompt and *answer*, for the engine's prefix cache."""
        return np.array(hash_blocks(self.prompt + "".join(answer).encode()), np.uint64)


def parse_call(raw: bytes, *, chat: bool, model: str, longest_tokens: int) -> CompletionCall:
    """Read the body of a (chat) completions request for *model*.

    Raises:
        InvalidCallError: it is no such request, or prompt and answer exceed *longest_tokens*.
    """
    body = _json_object(raw)
    _check_model(body.get("model"), model)
    prompt = _chat_prompt(body) if chat else _completion_prompt(body.get("prompt"))
    prompt_tokens = max(1, -(-len(prompt) // TOKEN_BYTES))
    options = body.get("stream_options")
    return CompletionCall(
        chat=chat,
        prompt=prompt,
        prompt_tokens=prompt_tokens,
        max_tokens=_max_tokens(body, longest_tokens - prompt_tokens, longest_tokens),
        streaming=body.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise bad_request("the body must be a JSON object")
    return body


def _check_model(asked: object, served: str) -> None:
    if not isinstance(asked, str) or not asked:
        raise bad_request("a model must be named", "model")
    if asked != served:
        raise InvalidCallError(
            404, "NotFoundError", f"The model `{asked}` does not exist.", "model"
        )


def _chat_prompt(body: dict[str, Any]) -> bytes:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise bad_request("messages must be a list with at least one message", "messages")
    parts = [b"<|tools|>\n", orjson.dumps(body["tools"]), b"\n"] if body.get("tools") else []
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise bad_request("each message must be an object with a role", "messages")
        parts += (b"<|", message["role"].encode(), b"|>\n", _content(message), b"\n")
    parts.append(b"<|assistant|>\n")
    return b"".join(parts)


def _content(message: dict[str, Any]) -> bytes:
    content = message.get("content")
    if isinstance(content, str):
        text = content.encode()
    else:
        items = content if isinstance(content, list) else []
        texts = (item.get("text") if isinstance(item, dict) else None for item in items)
        text = b"".join(
            given.encode() if isinstance(given, str) else orjson.dumps(item)
            for item, given in zip(items, texts, strict=True)
        )
    calls = message.get("tool_calls")
    return text + orjson.dumps(calls) if calls else text


def _completion_prompt(prompt: object) -> bytes:
    if isinstance(prompt, list) and len(prompt) == 1 and not isinstance(prompt[0], int):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt.encode()
    if not isinstance(prompt, list) or not all(isinstance(token, int) for token in prompt):
        raise bad_request("prompt must be one string or one list of token ids", "prompt")
    try:
        return struct.pack(f"<{len(prompt)}I", *prompt)
    except struct.error:
        raise bad_request("token ids must be integers from 0 to 4294967295", "prompt") from None


def _max_tokens(body: dict[str, Any], room: int, longest_tokens: int) -> int:
    given = body.get("max_completion_tokens") or body.get("max_tokens")
    if given is None:
        given = min(DEFAULT_MAX_TOKENS, max(1, room))
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise bad_request("max_tokens must be a positive integer", "max_tokens")
    if given > room:
        raise bad_request(
            f"This model's maximum context length is {longest_tokens} tokens; the request asks for "
            f"{given} beyond a prompt of {longest_tokens - room}.",
            "max_tokens",
        )
    return given
