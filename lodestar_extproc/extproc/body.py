"""From a client's HTTP request to an InferenceRequest.

It knows paths, headers and JSON; nothing of gRPC, and nothing of who will serve the request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson
import xxhash

from lodestar_extproc.extproc.prompt import InvalidRequest, Prompt, prompts
from lodestar_extproc.extproc.scheduling_hints import NO_HINTS, SchedulingHints
from lodestar_extproc.request import InferenceRequest, RequestKind, hash_blocks

__all__ = ["InvalidRequest", "kind_of", "parse", "unparsed"]

MAX_HASHED_BYTES = 4 * 2**20
"""About a million tokens, beyond any context window: a longer prompt's tail is not hashed."""

_PATHS = (
    ("/v1/chat/completions", RequestKind.CHAT_COMPLETIONS),
    ("/v1/completions", RequestKind.COMPLETIONS),
    ("/v1/responses", RequestKind.RESPONSES),
    ("/v1/embeddings", RequestKind.EMBEDDINGS),
    ("/v1/messages", RequestKind.MESSAGES),
)
_OUTPUT_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_SESSION_FIELDS = ("session_id", "conversation", "prompt_cache_key", "user")
"""What clients name a session by, the narrowest first."""


def kind_of(method: str, path: str) -> RequestKind | None:
    """The API that *method* and *path* call; None where the request is no inference.

    >>> kind_of("POST", "/v1/chat/completions?trace=1")
    <RequestKind.CHAT_COMPLETIONS: 'chat_completions'>
    >>> kind_of("GET", "/v1/models") is None
    True
    """
    if method != "POST":
        return None
    path = path.partition("?")[0].rstrip("/")
    return next((kind for suffix, kind in _PATHS if path.endswith(suffix)), None)


def parse(
    body: bytes,
    kind: RequestKind,
    bytes_per_token: Callable[[str], float],
    hints: SchedulingHints = NO_HINTS,
    target_of: Callable[[str], str] = str,
) -> InferenceRequest:
    """Read *body*, written for the API *kind*.

    Args:
        body: the whole HTTP body.
        kind: UNKNOWN reads it by its shape.
        bytes_per_token: learned, by model; above 0.
        hints: what its headers ask for.
        target_of: the model to ask the engine for in place of the one named.

    Raises:
        InvalidRequest: not JSON, not an object, no model, or beyond what can be read.
    """
    fields = _load(body)
    named = fields.get("model")
    if not isinstance(named, str) or not named:
        raise InvalidRequest('the body must name a model: "model": "..."')
    model = target_of(named)
    sequences = prompts(kind, fields)
    return InferenceRequest(
        model=model,
        kind=kind,
        block_hashes=_block_hashes(sequences, _seed(model, fields.get("cache_salt"))),
        prompt_bytes=sum(len(prompt.data) for prompt in sequences),
        prompt_tokens=_tokens(sequences, bytes_per_token(model)),
        streaming=fields.get("stream") is True,
        max_output_tokens=_output_limit(fields),
        ttft_slo_s=hints.ttft_slo_s,
        tpot_slo_s=hints.tpot_slo_s,
        priority=hints.priority,
        session=_session(hints.session, fields),
        named_model=None if model == named else named,
    )


def unparsed(
    body_bytes: int, bytes_per_token: float, hints: SchedulingHints = NO_HINTS
) -> InferenceRequest:
    """A request known by its size alone; the engine will tell the client what is wrong with it."""
    return InferenceRequest(
        model="",
        kind=RequestKind.UNKNOWN,
        block_hashes=(),
        prompt_bytes=body_bytes,
        prompt_tokens=body_bytes / bytes_per_token,
        streaming=False,
        ttft_slo_s=hints.ttft_slo_s,
        tpot_slo_s=hints.tpot_slo_s,
        priority=hints.priority,
        session=_session(hints.session, {}),
    )


def _session(name: str, fields: Mapping[str, Any]) -> int | None:
    """Hash *name*, or else the first field that names a session; the names are not kept."""
    if name:
        return xxhash.xxh3_64_intdigest(name.encode())
    for field in _SESSION_FIELDS:
        given = fields.get(field)
        if field == "conversation" and isinstance(given, dict):
            given = given.get("id")
        if isinstance(given, str) and given:
            return xxhash.xxh3_64_intdigest(f"{field}\0{given}".encode())
    return None


def _load(body: bytes) -> Mapping[str, Any]:
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise InvalidRequest("the body must be a JSON object")
    return fields


def _seed(model: str, cache_salt: object) -> int:
    """Engines share no cache between models (a LoRA is one), nor between vLLM's cache salts."""
    salt = cache_salt if isinstance(cache_salt, str) else ""
    return xxhash.xxh3_64_intdigest(f"{model}\0{salt}".encode())


def _block_hashes(sequences: tuple[Prompt, ...], seed: int) -> tuple[int, ...]:
    """Hash each prompt of a batch as a chain of its own, and join the chains."""
    if len(sequences) == 1:
        return hash_blocks(sequences[0].data[:MAX_HASHED_BYTES], seed)
    left = MAX_HASHED_BYTES
    hashes: list[int] = []
    for prompt in sequences:
        hashes.extend(hash_blocks(prompt.data[:left], seed))
        left = max(0, left - len(prompt.data))
    return tuple(hashes)


def _tokens(sequences: tuple[Prompt, ...], bytes_per_token: float) -> float:
    return sum(
        len(prompt.data) / bytes_per_token if prompt.tokens is None else float(prompt.tokens)
        for prompt in sequences
    )


def _output_limit(fields: Mapping[str, Any]) -> int | None:
    given = (fields.get(name) for name in _OUTPUT_LIMITS)
    return next((limit for limit in given if type(limit) is int and limit > 0), None)
