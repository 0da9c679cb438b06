"""renamed(): make a body ask for another model, and change no other byte.

It knows JSON, not who wants the other model.
"""

from __future__ import annotations

import itertools
import re

import orjson

MAX_TRIES = 4
"""Places looked at: each costs reading the whole body once.

A judgement: the first is nearly always it, others are nested objects that name a model too.
"""
_MODEL = re.compile(rb'"model"[ \t\r\n]*+:[ \t\r\n]*+("(?:[^"\\]++|\\.)*+")')


def renamed(body: bytes, model: str) -> bytes:
    """Make *body*, a JSON object, ask for *model*; *body* itself where it already does.

    The name alone is replaced. Where that cannot be done, for the object names no model or names it
    in a way of its own (an escaped key, many nested ones), the whole is written anew.

    Raises:
        ValueError: it is no JSON object.

    >>> renamed(b'{ "model": "a", "n": 1.0 }', "b")
    b'{ "model": "b", "n": 1.0 }'
    """
    fields = orjson.loads(body)
    if not isinstance(fields, dict):
        raise ValueError("the body is no JSON object")  # noqa: TRY004  (the caller's one case)
    if fields.get("model") == model:
        return body
    name = orjson.dumps(model)
    for match in itertools.islice(_MODEL.finditer(body), MAX_TRIES):
        begin, end = match.span(1)
        changed = body[:begin] + name + body[end:]
        # A nested object may name a model too; the top object's name has to have changed.
        if orjson.loads(changed).get("model") == model:
            return changed
    return orjson.dumps({**fields, "model": model})
