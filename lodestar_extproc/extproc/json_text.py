"""Reading JSON as Python's `json.loads` reads bytes, for engines do: by orjson where that agrees.

It knows JSON and its encodings, not what a body means.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

from lodestar_extproc.extproc.budget import Limit, OverBudget

MAX_PYTHON_BYTES = 2**20
"""What is read by `json.loads` or written in another encoding: ten times slower than orjson, so
this takes 10 ms."""
_SURROGATES = "surrogatepass"
_TRUE = frozenset(("1", "true", "t", "yes", "y", "on"))
_FALSE = frozenset(("0", "false", "f", "no", "n", "off"))
"""Strings that pydantic takes for booleans, in any case (pydantic's conversion table)."""


class InvalidRequest(ValueError):  # noqa: N818  (the condition's name)
    """The body is no inference request; the message says why, in the client's terms."""


def as_utf8(body: bytes) -> bytes:
    """*body* in UTF-8 without a byte order mark, of whatever encoding `json.loads` detects.

    Raises:
        InvalidRequest: it is not in that encoding.
        OverBudget: it is long and in another encoding.

    >>> as_utf8("{}".encode("utf-16")), as_utf8(b"{}")
    (b'{}', b'{}')
    """
    if body[:1] == b"{" and body[1:2] > b"\0":  # as nearly all begin: no mark, and no wider letters
        return body
    encoding = json.detect_encoding(body)
    if encoding == "utf-8":
        return body
    if encoding == "utf-8-sig":
        return body[3:]
    try:
        return _short(body).decode(encoding, _SURROGATES).encode("utf-8", _SURROGATES)
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None


def is_true(value: object) -> bool:
    """Whether pydantic, by which engines read their bodies, takes *value* for true."""
    if isinstance(value, str):
        return value.lower() in _TRUE
    return isinstance(value, (bool, int, float)) and value == 1


def is_false(value: object) -> bool:
    """The same for false; what is neither, as null, is the field's default."""
    if isinstance(value, str):
        return value.lower() in _FALSE
    return isinstance(value, (bool, int, float)) and value == 0


def positive(value: object) -> int | None:
    """A number as pydantic reads one: "5" and 5.0 are 5."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and value > 0 else None


def load(text: bytes) -> Any:
    """The value that *text*, in UTF-8, stands for.

    Raises:
        InvalidRequest: Python's json would not read it.
        OverBudget: it is nested too deeply, or long and not what orjson reads.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return load_as_python(text)


def load_as_python(text: bytes) -> Any:
    """The same by Python's json alone, which reads integers of any length and NaN."""
    try:
        return json.loads(_short(text).decode("utf-8", _SURROGATES))
    except RecursionError:
        raise OverBudget(Limit.NESTING) from None
    except ValueError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None


def _short(data: bytes) -> bytes:
    if len(data) > MAX_PYTHON_BYTES:
        raise OverBudget(Limit.BYTES)
    return data
