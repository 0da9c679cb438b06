"""renamed(): make a body ask for another model, and change no other byte.

It knows JSON, not who wants the other model.
"""

from __future__ import annotations

import itertools
import json
import re

import orjson

from lodestar_extproc.extproc.json_text import MAX_PYTHON_BYTES, as_utf8, load, load_as_python

MAX_TRIES = 4
"""Places looked at: each costs reading the whole body once.

A judgement: the first is nearly always it, others are nested objects that name a model too.
"""
_MODEL = re.compile(rb'"model"[ \t\r\n]*+:[ \t\r\n]*+("(?:[^"\\]++|\\.)*+")')


def renamed(body: bytes, model: str) -> bytes:
    """Make *body*, a JSON object, ask for *model*; *body* itself where it already does.

    The name alone is replaced. Where that cannot be done, for the object names no model or names it
    in a way of its own (an escaped key, many nested ones), the whole is written anew. The result is
    UTF-8, whatever *body* is.

    Raises:
        ValueError: it is no JSON object.

    >>> renamed(b'{ "model": "a", "n": 1.0 }', "b")
    b'{ "model": "b", "n": 1.0 }'
    """
    text = as_utf8(body)
    fields = load(text)
    if not isinstance(fields, dict):
        raise ValueError("the body is no JSON object")  # noqa: TRY004  (the caller's one case)
    if fields.get("model") == model:
        return body
    name = orjson.dumps(model)
    for match in itertools.islice(_MODEL.finditer(text), MAX_TRIES):
        begin, end = match.span(1)
        changed = text[:begin] + name + text[end:]
        # A nested object may name a model too; the top object's name has to have changed.
        if load(changed).get("model") == model:
            return changed
    # Python's json keeps what orjson changes: long integers, NaN, lone surrogates.
    exact = load_as_python(text) if len(text) <= MAX_PYTHON_BYTES else fields
    return json.dumps({**exact, "model": model}).encode()
