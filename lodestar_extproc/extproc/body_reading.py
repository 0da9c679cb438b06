"""What a body says: one JSON text of a client, read in steps.

It knows JSON bodies and what engines make of them; neither who asks nor who will serve. The service
and its reader process (`reader_main.py`) read by it.
"""

from __future__ import annotations

from array import array
from collections.abc import Generator, Mapping
from typing import Any, NamedTuple

from lodestar_extproc.extproc import body_fields, keeping, prompt_scores
from lodestar_extproc.extproc.budget import UNCOUNTED_BYTES, Limit, OverBudget, hold_objects
from lodestar_extproc.extproc.canonical import Inexact, Source
from lodestar_extproc.extproc.json_text import InvalidRequest, as_utf8, load, load_as_python
from lodestar_extproc.extproc.long_strings import LARGE_BYTES, LongStrings
from lodestar_extproc.extproc.plain_chat import SHORT_BYTES, plain_chat
from lodestar_extproc.extproc.prompt import PromptReader
from lodestar_extproc.request import BLOCK_BYTES, HASH_TYPE, Keeping, RequestKind, hash_blocks

__all__ = ["InvalidRequest", "OverBudget", "ParsedBody", "read", "reading"]

HASHED_BYTES = 64 * 2**10
"""Hashed in one go: a quarter of a millisecond."""

SILENT_BYTES = 1024
"""A body from here on that says nothing we know of is a load of its own length. A judgement."""


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


class Prompts(NamedTuple):
    """What a body's sequences are together; as of `ParsedBody`.

    Attributes:
        are_plain: all of them, and all of them were read.
        head: as of `PromptReader`.
    """

    block_hashes: array[int]
    text_bytes: int
    prompt_bytes: int
    n_token_ids: int = 0
    n_media: int = 0
    are_plain: bool = True
    n_prompts: int = 1
    head: bytes = b""


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
    is_chat = kind is RequestKind.CHAT_COMPLETIONS
    is_whole = n_bytes <= SHORT_BYTES and not strings
    if is_chat and is_whole and (prompt := plain_chat(fields)) is not None:
        hashes = array(HASH_TYPE)
        yield from _hash(prompt, hashes)
        n_bytes = len(prompt)
        return _said(fields, kind, strings, Prompts(hashes, n_bytes, n_bytes))
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
    return (yield from _of_read(reader, fields, kind, strings))


def _of_read(
    reader: PromptReader, fields: Mapping[str, Any], kind: RequestKind, strings: LongStrings
) -> Generator[None, None, ParsedBody]:
    """What a body says whose sequences have been read."""
    hashes = array(HASH_TYPE)
    text_bytes, other_bytes, n_token_ids, n_media = reader.rest_bytes, 0, 0, 0
    for sequence in reader.sequences:
        yield from _hash(sequence.data, hashes)
        text_bytes += sequence.text_bytes
        other_bytes += sequence.other_bytes
        n_token_ids += sequence.n_tokens
        n_media += sequence.n_media
    prompts = Prompts(
        *(hashes, text_bytes, text_bytes + other_bytes, n_token_ids, n_media),
        *(_is_plain(reader), len(reader.sequences), reader.head),
    )
    return _said(fields, kind, strings, prompts)


def _said(
    fields: Mapping[str, Any], kind: RequestKind, strings: LongStrings, prompts: Prompts
) -> ParsedBody:
    return ParsedBody(
        model=body_fields.model_in(fields, strings),
        block_hashes=prompts.block_hashes,
        seed=body_fields.seed_of(fields, strings),
        text_bytes=prompts.text_bytes,
        prompt_bytes=prompts.prompt_bytes,
        n_token_ids=prompts.n_token_ids,
        n_media=prompts.n_media,
        is_plain=prompts.are_plain and not body_fields.may_be_cut(fields),
        streaming=body_fields.streams(fields, kind),
        max_output_tokens=body_fields.output_limit_in(fields),
        session=body_fields.session_in(fields, strings),
        keeping=keeping.read(fields, kind, strings, prompts.head),
        reads_cache=prompt_scores.reads_cache(fields, kind),
        n_answers=body_fields.n_answers_in(fields, kind, prompts.n_prompts),
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


def _is_plain(reader: PromptReader) -> bool:
    return not reader.rest_bytes and all(each.is_plain for each in reader.sequences)


def _hash(data: bytes | bytearray, hashes: array[int]) -> Generator[None, None, None]:
    """Hash a sequence as a chain of its own, in steps."""
    if len(data) <= HASHED_BYTES:
        hashes += hash_blocks(data)
        return
    # A view of bytes cannot be hashed where it lies (`hash_blocks`): they are cut.
    whole, seed = memoryview(data) if isinstance(data, bytearray) else data, 0
    for start in range(0, len(data) - BLOCK_BYTES + 1, HASHED_BYTES):
        blocks = hash_blocks(whole[start : start + HASHED_BYTES], seed)
        seed = blocks[-1]
        hashes += blocks
        yield


def _object(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequest("the body must be a JSON object")
    return value
