"""What a body says: one JSON text of a client, read in steps.

It knows JSON bodies and what engines make of them; neither who asks nor who will serve. The service
and its reader process (`reader_main.py`) read by it.
"""

from __future__ import annotations

from array import array
from collections.abc import Generator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import xxhash

from lodestar_extproc.extproc import keeping, prompt_scores
from lodestar_extproc.extproc.budget import UNCOUNTED_BYTES, Limit, OverBudget, hold_objects
from lodestar_extproc.extproc.canonical import Inexact, PromptWriter, Source
from lodestar_extproc.extproc.json_text import (
    InvalidRequest,
    as_utf8,
    is_false,
    is_true,
    load,
    load_as_python,
    positive,
)
from lodestar_extproc.extproc.long_strings import LARGE_BYTES, LongStrings
from lodestar_extproc.extproc.prompt import PromptReader
from lodestar_extproc.request import (
    BLOCK_BYTES,
    HASH_TYPE,
    MAX_ANSWERS,
    Keeping,
    RequestKind,
    hash_blocks,
)

__all__ = ["InvalidRequest", "OverBudget", "ParsedBody", "read", "reading"]

HASHED_BYTES = 64 * 2**10
"""Hashed in one go: a quarter of a millisecond."""

SILENT_BYTES = 1024
"""A body from here on that says nothing we know of is a load of its own length. A judgement."""
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


class ParsedBody(NamedTuple):
    """What a body says, whoever will be asked for it; without a word of the prompt.

    Attributes:
        model: as named; empty where it names none.
        block_hashes: of its sequences, one after another; not yet those of a model.
        seed: hash of what a cache depends on beside model and prompt.
        text_bytes: of all sequences, those that were not read included.
        prompt_bytes: those that block hashes stand for, and those not hashed.
        is_plain: as of the request.
        session: hash of the first field that names one.
        keeping: as of the request, but for its seed.
        reads_cache, n_answers: as of the request.
    """

    model: str
    block_hashes: array[int]
    seed: int
    text_bytes: int
    prompt_bytes: int
    n_token_ids: int
    n_media: int
    is_plain: bool
    streaming: bool
    max_output_tokens: int | None
    session: int | None
    keeping: Keeping | None
    reads_cache: bool
    n_answers: int


def reading(body: bytes, kind: RequestKind) -> Generator[None, None, ParsedBody]:
    """Read *body*, written for the API *kind*, in steps of at most some milliseconds.

    Raises:
        InvalidRequest: no engine would read it either.
        OverBudget: it would take too much to read it.
    """
    text, strings, n_bytes = as_utf8(body), LongStrings(), len(body)
    # Its long strings are kept beside it otherwise: twice a long body.
    del body
    if len(text) > UNCOUNTED_BYTES:
        yield from hold_objects(text)
    if len(text) > LARGE_BYTES:
        text = yield from strings.part(text)
    fields = _object(load(text))
    if len(text) > UNCOUNTED_BYTES:
        yield
    reader = PromptReader(Source(strings))
    try:
        try:
            yield from reader.read(kind, fields)
        except Inexact:
            fields = _object(load_as_python(text))
            reader = PromptReader(Source(strings, exact=True))
            yield from reader.read(kind, fields)
    except RecursionError:
        raise OverBudget(Limit.NESTING) from None
    if n_bytes >= SILENT_BYTES and not any(sequence.data for sequence in reader.sequences):
        reader.rest_bytes = reader.rest_bytes or n_bytes
    hashes = array(HASH_TYPE)
    text_bytes, other_bytes, n_token_ids, n_media = reader.rest_bytes, 0, 0, 0
    for sequence in reader.sequences:
        if len(sequence.data) <= HASHED_BYTES:
            hashes += hash_blocks(sequence.data)
        else:
            yield from _hash(sequence, hashes)
        text_bytes += sequence.text_bytes
        other_bytes += sequence.other_bytes
        n_token_ids += sequence.n_tokens
        n_media += sequence.n_media
    return ParsedBody(
        model=_model(fields, strings),
        block_hashes=hashes,
        seed=_seed(fields, strings),
        text_bytes=text_bytes,
        prompt_bytes=text_bytes + other_bytes,
        n_token_ids=n_token_ids,
        n_media=n_media,
        is_plain=_is_plain(reader, fields),
        streaming=_streams(fields, kind),
        max_output_tokens=_output_limit(fields),
        session=_session(fields, strings),
        keeping=keeping.read(fields, kind, strings, reader.head),
        reads_cache=prompt_scores.reads_cache(fields, kind),
        n_answers=_n_answers(fields, kind, len(reader.sequences)),
    )


def read(body: bytes, kind: RequestKind) -> ParsedBody:
    """Read *body* in one go; errors as of `reading`."""
    steps = reading(body, kind)
    try:
        while True:
            next(steps)
    except StopIteration as end:
        parsed: ParsedBody = end.value
        return parsed


def _is_plain(reader: PromptReader, fields: Mapping[str, Any]) -> bool:
    plain = [sequence.is_plain for sequence in reader.sequences]
    if reader.rest_bytes or not all(plain):
        return False
    return _CUTS.isdisjoint(fields) or not any(fields.get(name) for name in _CUTS)


def _hash(sequence: PromptWriter, hashes: array[int]) -> Generator[None, None, None]:
    """Hash a sequence as a chain of its own, in steps."""
    data, seed = memoryview(sequence.data), 0
    for start in range(0, len(data) - BLOCK_BYTES + 1, HASHED_BYTES):
        blocks = hash_blocks(data[start : start + HASHED_BYTES], seed)
        seed = blocks[-1]
        hashes += blocks
        yield


def _object(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequest("the body must be a JSON object")
    return value


def _model(fields: Mapping[str, Any], strings: LongStrings) -> str:
    named = fields.get("model")
    if named is not None and not isinstance(named, str):
        raise InvalidRequest('the model must be a text: "model": "..."')
    # What is no Unicode has no place in logs and labels.
    return strings.text(named or "").encode("utf-8", "replace").decode()


def _seed(fields: Mapping[str, Any], strings: LongStrings) -> int:
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


def _session(fields: Mapping[str, Any], strings: LongStrings) -> int | None:
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


def _streams(fields: Mapping[str, Any], kind: RequestKind) -> bool:
    """Whether the answer comes piece by piece; Ollama's does unless the client asks otherwise."""
    if kind is RequestKind.OLLAMA:
        return not is_false(fields.get("stream"))
    return kind is RequestKind.GENERATE_STREAM or is_true(fields.get("stream"))


def _n_answers(fields: Mapping[str, Any], kind: RequestKind, n_prompts: int) -> int:
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


def _output_limit(fields: Mapping[str, Any]) -> int | None:
    limit = _limit_in(fields)
    for name in _HOLDERS:
        limit = limit or _limit_in(fields.get(name))
    return limit


def _limit_in(holder: Any) -> int | None:
    for name in _OUTPUT_LIMITS if isinstance(holder, dict) else ():
        if name in holder and (limit := positive(holder[name])):
            return limit
    return None
