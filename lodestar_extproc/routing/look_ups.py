"""Lookup, Search: requests for what an engine keeps that are no inference, and where they go."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

MAX_SOUGHT = 4_096
"""Names nobody is known to keep that are looked for at a time. A judgement: 0.5 MB."""
_LOOKUP = re.compile(r".*\.kept-([0-9a-f]{16})", re.DOTALL)
"""Behind the name of a pool; decisions have other ids."""


class Lookup(NamedTuple):
    """A request that is for what is kept, and no inference.

    Attributes:
        addresses: of the endpoint that keeps it; where nobody knows, of those that may, the one to
            ask first; none where it names nothing.
        lookup_id: by which its answer is told.
    """

    addresses: tuple[str, ...]
    lookup_id: str


def lookup_id(pool: str, key: int) -> str:
    """The id of a look-up in *pool*; *key* is that of a name, 0 for none."""
    return f"{pool}.kept-{key:016x}"


def key_of_lookup(told_id: str) -> int | None:
    """The key in a `lookup_id`; None where *told_id* is another."""
    found = _LOOKUP.fullmatch(told_id)
    return int(found[1], 16) if found else None


class Search:
    """Who is asked for a name that nobody is known to keep: one endpoint after the other.

    So whoever asks again finds it, after as many requests as there are endpoints at most; chance
    would leave one in a hundred without it after twelve requests to three.
    """

    def __init__(self) -> None:
        self._n_asked: OrderedDict[int, int] = OrderedDict()

    def next(self, key: int, addresses: Sequence[str]) -> tuple[str, ...]:
        """*addresses*, the one whose turn it is for *key* first."""
        if not addresses:
            return ()
        n_asked = self._n_asked.pop(key, 0)
        self._n_asked[key] = n_asked + 1
        if len(self._n_asked) > MAX_SOUGHT:
            self._n_asked.popitem(last=False)
        # Names begin at different endpoints, so that none gets all the first questions.
        first = (key + n_asked) % len(addresses)
        return (*addresses[first:], *addresses[:first])

    def found(self, key: int) -> None:
        """Somebody has it."""
        self._n_asked.pop(key, None)
