"""Scalars of Envoy's configuration, in every form that Envoy reads: durations, numbers, truths.

Tried with Envoy 1.40. What is in no such form it refuses, and so do these: they say None.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from ruamel.yaml.scalarstring import PlainScalarString

DURATION = re.compile(r"-?\d+(\.\d{1,9})?s")
"""`1.5s`; neither `500ms` nor `1m`."""
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
NANO = 1e-9  # by the prefix
TRUE = frozenset({"true", "t", "yes", "y", "1"})
"""In quotes and in any case; without quotes YAML has read it before."""


def flag(value: object) -> bool:
    """Whether it is true."""
    return value is True or (isinstance(value, str) and value.lower() in TRUE)


def number(value: object) -> float | None:
    """A number, also one in quotes."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    if isinstance(value, str) and not NUMBER.fullmatch(value):
        return None
    try:
        parsed = float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return None
    return parsed if math.isfinite(parsed) else None


def unwrapped(value: object) -> object:
    """What a wrapper (UInt32Value, BoolValue) holds: it may stand as `5` or as `{value: 5}`.

    One that holds nothing is 0, or false.
    """
    return value.get("value", 0) if isinstance(value, Mapping) else value


def plain(value: object) -> object:
    """*value*, in which plain text that is a number is one."""
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return number(value) if isinstance(value, PlainScalarString) else value


def seconds(value: object) -> float | None:
    """A Duration, in s: `0.25s` or `{seconds: 0, nanos: 250000000}`."""
    if isinstance(value, str):
        return float(value[:-1]) if DURATION.fullmatch(value) else None
    if isinstance(value, Mapping) and value.keys() <= {"seconds", "nanos"}:
        whole, nanos = (number(value.get(name) or 0) for name in ("seconds", "nanos"))
        return None if whole is None or nanos is None else whole + nanos * NANO
    return None
