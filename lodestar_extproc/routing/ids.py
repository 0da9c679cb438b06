"""Ids of decisions and of streams, which say which replica made them."""

from __future__ import annotations

import random

ORIGIN_DIGITS = 8
"""Hexadecimal, of a replica's name: among a hundred of them two are alike once in a million."""
_DRAWN_DIGITS = 16  # 64 bits: of a million open at once no two are alike


def new_origin(rng: random.Random) -> str:
    """A name for a process that is new: a restart is another replica."""
    return f"{rng.getrandbits(4 * ORIGIN_DIGITS):0{ORIGIN_DIGITS}x}"


def new_id(origin: str, rng: random.Random) -> str:
    """An id that nobody else draws.

    Args:
        origin: of this replica; empty for one that has no others beside it.
    """
    return f"{origin}{rng.getrandbits(4 * _DRAWN_DIGITS):0{_DRAWN_DIGITS}x}"


def owner_of(own_id: str) -> str:
    """The replica that made the id of a decision or a stream; empty where the id does not say.

    >>> owner_of("engines.00c0ffee0123456789abcdef"), owner_of("engines.0123456789abcdef")
    ('00c0ffee', '')
    """
    drawn = own_id.rpartition(".")[2]
    return drawn[:ORIGIN_DIGITS] if len(drawn) == ORIGIN_DIGITS + _DRAWN_DIGITS else ""
