"""json_form(): a value in one spelling of JSON, as templates write arguments and schemas.

One call of orjson in place of a walk. What orjson would write otherwise than it was read is left to
whoever walks.
"""

from __future__ import annotations

import re

import orjson

from lodestar_extproc.extproc.media import is_cache_marker

EXACT_BELOW = 2.0**63
"""Python's json reads integers beyond as they are, orjson as floats."""
_MARKERS_BEGIN = b'"cache'
_PERHAPS_ODD = re.compile(rb"e\+?[123][0-9]|null|[0-9]{16}\.")
"""How orjson, of whatever version, writes a large float, and what is no number."""
_SIMPLE = frozenset((str, int, bool))


def json_form(value: object) -> bytes | None:
    """*value* as JSON, without marks of a cache; None where it is to be walked.

    Equal values, with their keys in one order, have one form.

    >>> json_form({"a": [1, 2.0], "cache_control": {"type": "ephemeral"}})
    b'{"a":[1,2.0]}'
    >>> json_form([1e30]) is None, json_form([float("nan")]) is None, json_form([2**70]) is None
    (True, True, True)
    """
    try:
        form = orjson.dumps(value)
        if isinstance(value, dict) and _is_flat(value):
            return form  # as most arguments are
        if _MARKERS_BEGIN in form:
            value = _without_markers(value)
            form = orjson.dumps(value)
    except TypeError:  # a large integer, a lone surrogate, or nested too deeply
        return None
    return None if _PERHAPS_ODD.search(form) and _holds_odd(value) else form


def _is_flat(value: dict[str, object]) -> bool:
    """Whether nothing in it can be odd or a marker."""
    return _SIMPLE.issuperset(map(type, value.values()))


def _holds_odd(value: object) -> bool:
    """Whether a number in it has lost digits, or is none."""
    if isinstance(value, float):
        return not abs(value) < EXACT_BELOW
    if isinstance(value, dict):
        return any(map(_holds_odd, value.values()))
    return isinstance(value, list) and any(map(_holds_odd, value))


def _without_markers(value: object) -> object:
    if isinstance(value, dict):
        kept = ((k, v) for k, v in value.items() if not is_cache_marker(k, v))
        return {key: _without_markers(each) for key, each in kept}
    return list(map(_without_markers, value)) if isinstance(value, list) else value
