"""kept_count(): a count in the state of a learner, as a checkpoint or another replica tells it."""

from __future__ import annotations

from typing import Any

MOST = 2**53  # JSON readers agree up to here (RFC 8259, section 6); nobody counts as far


def kept_count(told: Any) -> int:
    """*told* as a count.

    Raises:
        TypeError, ValueError, OverflowError: it is none: below zero, or too large to be written
            again.
    """
    count = int(told)
    if not 0 <= count < MOST:
        raise ValueError(f"a count of {count}")
    return count
