"""What an HTTP request calls, by its method and path.

It knows the paths of engines and clouds; nothing of bodies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote

from lodestar_extproc.request import RequestKind

HEAVY_BYTES = 4096
"""A body on a path that nobody knows is load from here on: a thousand tokens. A judgement."""

_KINDS = (
    ("/api/chat", RequestKind.OLLAMA),
    ("/api/generate", RequestKind.OLLAMA),
    ("/chat/completions", RequestKind.CHAT_COMPLETIONS),
    ("/chat/completions/batch", RequestKind.CHAT_COMPLETIONS),
    ("/completions", RequestKind.COMPLETIONS),
    ("/responses", RequestKind.RESPONSES),
    ("/responses/compact", RequestKind.RESPONSES),
    ("/embeddings", RequestKind.EMBEDDINGS),
    ("/messages", RequestKind.MESSAGES),
    ("/embed", RequestKind.EMBEDDINGS),
    ("/embedding", RequestKind.EMBEDDINGS),
    ("/encode", RequestKind.GENERATE),
    ("/rerank", RequestKind.RERANK),
    ("/score", RequestKind.SCORE),
    ("/generative_scoring", RequestKind.SCORE),
    ("/classify", RequestKind.CLASSIFY),
    ("/pooling", RequestKind.POOLING),
    ("/generate", RequestKind.GENERATE),
    ("/generate_stream", RequestKind.GENERATE_STREAM),
    ("/vertex_generate", RequestKind.GENERATE),
    ("/vertex", RequestKind.GENERATE),
    ("/completion", RequestKind.COMPLETIONS),
    ("/infill", RequestKind.COMPLETIONS),
    ("/invocations", RequestKind.INVOCATIONS),
    ("/infer", RequestKind.UNKNOWN),
    ("/audio/transcriptions", RequestKind.UNKNOWN),
    ("/audio/translations", RequestKind.UNKNOWN),
    ("/audio/speech", RequestKind.UNKNOWN),
    ("/images/generations", RequestKind.UNKNOWN),
    ("/images/edits", RequestKind.UNKNOWN),
)
"""The end of a path, whatever stands before it, and the API; UNKNOWN counts as load by its size.

vLLM's, SGLang's, TGI's, Triton's and llama.cpp's own beside OpenAI's, Anthropic's, Cohere's,
SageMaker's, Vertex AI's and Ollama's.
"""
_NO_WORK = (
    "/tokenize",
    "/detokenize",
    "/count_tokens",
    "/input_tokens",
    # The prompt as text or ids, by its template alone, and an answer's text from its ids.
    "/render",
    "/derender",
    "/apply-template",
    "/parse_function_call",
    "/separate_reasoning",
    "/cancel",
    "/files",
    "/uploads",
    "/threads",
    "/load_lora_adapter",
    "/unload_lora_adapter",
)
"""These compute no prompt, however long their body is."""
_NO_MESSAGES = re.compile(r"/threads/[^/]+/messages\Z")
_COLLECTIONS = (
    *("responses", "conversations", "chat/completions", "videos", "batches", "files", "uploads"),
    *("threads", "containers", "vector_stores"),
)
"""Where engines and gateways keep what was made, each under an id, as OpenAI's API has them."""
_VERBS = ("batch", "compact", "derender", "input_tokens", "render")
"""What may be asked for where an id stands otherwise."""
_KEPT = re.compile(rf"/(?:{'|'.join(_COLLECTIONS)})/(?!(?:{'|'.join(_VERBS)})(?:/|\Z))([^/]+)")
_MAKES = ("/conversations", *(f"/{name}" for name in _COLLECTIONS[3:]))
"""A POST to these makes something that is kept, and answers its id."""
_NAMES_MODEL = re.compile(r"/(?:deployments|engines|models)/([^/]+)/")


def kind_of(method: str, path: str, more: Iterable[str] = ()) -> RequestKind | None:
    """The API that *method* and *path* call; None where the request is no inference that we know.

    Args:
        more: ends of other paths, whose bodies are read by their shape.

    >>> kind_of("POST", "/openai/deployments/m/chat/completions?api-version=1")
    <RequestKind.CHAT_COMPLETIONS: 'chat_completions'>
    >>> kind_of("GET", "/v1/models") is None
    True
    """
    if method != "POST":
        return None
    path = _bare(path)
    if _NO_MESSAGES.search(path):
        return None
    if any(path.endswith(_bare(suffix)) for suffix in more):
        return RequestKind.INVOCATIONS
    return next((kind for suffix, kind in _KINDS if path.endswith(suffix)), None)


def may_be_heavy(method: str, path: str, announced_bytes: int | None) -> bool:
    """Whether a request that calls nothing known may be load all the same.

    Args:
        announced_bytes: the length of its body; None where the headers do not tell.
    """
    if method != "POST" or _bare(path).endswith(_NO_WORK):
        return False
    return announced_bytes is None or announced_bytes >= HEAVY_BYTES


def kept_name(path: str) -> str:
    """The name in *path* of something that an engine keeps; empty where it names none.

    >>> kept_name("/openai/v1/responses/resp_1/input_items?limit=2"), kept_name("/v1/responses")
    ('resp_1', '')
    >>> kept_name("/v1/chat/completions/render")
    ''
    """
    found = _KEPT.search(_bare(path))
    return unquote(found[1]) if found else ""


def makes_kept(method: str, path: str) -> bool:
    """Whether a request makes something, without a prompt, that an engine keeps under an id."""
    return method == "POST" and _bare(path).endswith(_MAKES)


def model_in(path: str) -> str:
    """The model that a path names, as Azure's and Triton's do; empty where it names none.

    >>> model_in("/openai/deployments/llama/chat/completions"), model_in("/v1/completions")
    ('llama', '')
    """
    found = _NAMES_MODEL.search(path.partition("?")[0])
    return found[1] if found else ""


def _bare(path: str) -> str:
    return path.partition("?")[0].rstrip("/")
