"""places_in(): every place of a parsed document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def places_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to each value inside *value*, outer ones first."""
    children = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, child in children:
        yield (*path, key)
        yield from places_in(child, (*path, key))
