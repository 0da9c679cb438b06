"""From a client's HTTP request to an InferenceRequest.

It knows paths, headers and JSON; nothing of gRPC, and nothing of who will serve the request.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import orjson
import xxhash

from lodestar_extproc.extproc.names import MODEL_REWRITE_HEADERS, TTFT_SLO_HEADERS
from lodestar_extproc.extproc.prompt import InvalidRequest, Prompt, prompts
from lodestar_extproc.request import InferenceRequest, RequestKind, hash_blocks

__all__ = ["InvalidRequest", "for_model", "kind_of", "parse", "unparsed"]

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
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


def kind_of(method: str, path: str) -> RequestKind | None:
    """The API behind *method* and *path*; None for what is no inference.

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
    headers: Mapping[str, str] = _NO_HEADERS,
) -> InferenceRequest:
    """Read *body*, written for the API *kind*.

    Args:
        body: the whole HTTP body.
        kind: UNKNOWN reads it by its shape.
        bytes_per_token: learned, by model; above 0.
        headers: of the request, names in lower case.

    Raises:
        InvalidRequest: not JSON, not an object, no model, or beyond what can be read.
    """
    fields = _load(body)
    model = fields.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidRequest('the body must name a model: "model": "..."')
    sequences = prompts(kind, fields)
    return InferenceRequest(
        model=model,
        kind=kind,
        block_hashes=_block_hashes(sequences, _seed(model, fields.get("cache_salt"))),
        prompt_bytes=sum(len(prompt.data) for prompt in sequences),
        prompt_tokens=_tokens(sequences, bytes_per_token(model)),
        streaming=fields.get("stream") is True,
        max_output_tokens=_output_limit(fields),
        ttft_slo_s=_ttft_slo_s(headers),
    )


def for_model(body: bytes, headers: Mapping[str, str]) -> bytes:
    """*body* asking for the model that *headers* name instead; else *body* itself.

    >>> for_model(b'{"model": "a", "n": 1}', {"x-llm-d-model-name-rewrite": "b"})
    b'{"model":"b","n":1}'
    """
    target = next(filter(None, map(headers.get, MODEL_REWRITE_HEADERS)), None)
    if target is None:
        return body
    try:
        fields = _load(body)
    except InvalidRequest:
        return body
    if fields.get("model") == target:
        return body
    return orjson.dumps({**fields, "model": target})


def unparsed(
    body_bytes: int, bytes_per_token: float, headers: Mapping[str, str] = _NO_HEADERS
) -> InferenceRequest:
    """A request known by its size alone; the engine will tell the client what is wrong with it."""
    return InferenceRequest(
        model="",
        kind=RequestKind.UNKNOWN,
        block_hashes=(),
        prompt_bytes=body_bytes,
        prompt_tokens=body_bytes / bytes_per_token,
        streaming=False,
        ttft_slo_s=_ttft_slo_s(headers),
    )


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
    """A batch's chains stand one after the other, each beginning anew."""
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


def _ttft_slo_s(headers: Mapping[str, str]) -> float | None:
    """The first readable header; a value that is no positive number is no bound."""
    for name in TTFT_SLO_HEADERS:
        try:
            slo_s = float(headers[name]) / 1e3
        except (KeyError, ValueError):
            continue
        if math.isfinite(slo_s) and slo_s > 0:
            return slo_s
    return None
