"""What a body's fields say beside its prompt: model, session, limits, and what parts its cache.

It knows the names that engines' APIs have for that; not what a prompt is.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import xxhash

from lodestar_extproc.extproc.canonical import PromptWriter, Source
from lodestar_extproc.extproc.json_text import InvalidRequest, is_false, is_true, positive
from lodestar_extproc.extproc.long_strings import LongStrings
from lodestar_extproc.request import MAX_ANSWERS, RequestKind

_CUTS = frozenset(("truncate_prompt_tokens", "truncate", "truncation", "max_tokens_per_doc"))
"""By which an engine may compute less than it is sent, so that its usage tells nothing of texts
(vLLM's, TEI's, the Responses API's, Cohere's)."""
_OUTPUT_LIMITS = (
    *("max_completion_tokens", "max_tokens", "max_output_tokens", "max_new_tokens"),
    *("n_predict", "num_predict"),  # llama.cpp's and Ollama's; -1 is none
)
_HOLDERS = ("sampling_params", "parameters", "options")
"""Where SGLang, TGI and Ollama have what stands at the top in OpenAI's API."""
_CHOICES = ("n", "best_of")
_CHOICE_FIELDS = frozenset((*_CHOICES, *_HOLDERS))
_SILENT_KINDS = frozenset(
    (
        *(RequestKind.EMBEDDINGS, RequestKind.RERANK, RequestKind.SCORE),
        *(RequestKind.CLASSIFY, RequestKind.POOLING, RequestKind.UNKNOWN),
    )
)
"""They generate nothing, as far as is known."""
_SESSION_FIELDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "session_id": (),
        "conversation": ("id",),
        "prompt_cache_key": (),
        # Claude Code's `user_id` holds its session, too.
        "metadata": ("session_id", "sessionId", "user_id"),
        "user": (),
        "safety_identifier": (),
    }
)
"""What clients name a session by, the narrowest first; where it is an object, by what in it."""
_SEED_FIELDS = frozenset(
    (
        "cache_salt",
        "extra_key",
        "lora_path",
        "chat_template",
        "chat_template_kwargs",
        "reasoning_effort",
        "reasoning",
        "mm_processor_kwargs",
    )
)
"""What engines share no cache across, or what changes a prompt in places that we cannot know."""


def model_in(fields: Mapping[str, Any], strings: LongStrings) -> str:
    """As named; empty where it names none.

    Raises:
        InvalidRequest: it is no text.
    """
    named = fields.get("model")
    if named is not None and not isinstance(named, str):
        raise InvalidRequest('the model must be a text: "model": "..."')
    # What is no Unicode has no place in logs and labels.
    return strings.text(named or "").encode("utf-8", "replace").decode()


def seed_of(fields: Mapping[str, Any], strings: LongStrings) -> int:
    """Whatever cannot share a cache has another one; defaults and empty values have none."""
    if _SEED_FIELDS.isdisjoint(fields):
        return 0
    given = {name: fields[name] for name in _SEED_FIELDS if fields.get(name)}
    reasoning = given.pop("reasoning", None)
    if isinstance(reasoning, dict) and reasoning.get("effort"):
        given["reasoning_effort"] = reasoning["effort"]  # the name of the Responses API for it
    if not given:
        return 0
    writer = PromptWriter(Source(strings, exact=True))
    writer.sorted_value(given)
    return xxhash.xxh3_64_intdigest(writer.data)


def session_in(fields: Mapping[str, Any], strings: LongStrings) -> int | None:
    """Hash the first field that names a session; the names are not kept."""
    if _SESSION_FIELDS.keys().isdisjoint(fields):  # as of most bodies
        return None
    for field, inner in _SESSION_FIELDS.items():
        given = fields.get(field)
        if isinstance(given, dict):
            given = next((given[name] for name in inner if given.get(name)), None)
        if isinstance(given, str) and given:
            name = f"{field}\0{strings.text(given)}"
            return xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogatepass"))
    return None


def streams(fields: Mapping[str, Any], kind: RequestKind) -> bool:
    """Whether the answer comes piece by piece; Ollama's does unless the client asks otherwise."""
    if kind is RequestKind.OLLAMA:
        return not is_false(fields.get("stream"))
    return kind is RequestKind.GENERATE_STREAM or is_true(fields.get("stream"))


def n_answers_in(fields: Mapping[str, Any], kind: RequestKind, n_prompts: int) -> int:
    """Of each prompt as many as it asks for; 1 of what generates nothing."""
    asks = not _CHOICE_FIELDS.isdisjoint(fields)
    if (n_prompts <= 1 and not asks) or kind in _SILENT_KINDS:
        return 1
    each = 1
    if asks:
        holders = [fields, *(fields.get(name) for name in _HOLDERS)]
        named = [h.get(name) for h in holders if isinstance(h, dict) for name in _CHOICES]
        each = max(positive(number) or 1 for number in named)
    return min(max(1, n_prompts) * each, MAX_ANSWERS)


def output_limit_in(fields: Mapping[str, Any]) -> int | None:
    """Tokens of an answer; None where it sets no bound."""
    limit = _limit_in(fields)
    for name in _HOLDERS:
        limit = limit or _limit_in(fields.get(name))
    return limit


def may_be_cut(fields: Mapping[str, Any]) -> bool:
    """Whether an engine may compute less of the prompt than it is sent."""
    return not _CUTS.isdisjoint(fields) and any(fields.get(name) for name in _CUTS)


def _limit_in(holder: Any) -> int | None:
    for name in _OUTPUT_LIMITS if isinstance(holder, dict) else ():
        if name in holder and (limit := positive(holder[name])):
            return limit
    return None
