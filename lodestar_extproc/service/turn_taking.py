"""give_way_soon(): threads that work beside the event loop give way to it soon."""

from __future__ import annotations

import sys

LONGEST_TURN_S = 0.5e-3
"""Python's own is 5 ms: while a file of 1,000 endpoints is read, for half a second, each time that
the event loop wakes it would wait as long. The work beside it becomes 1 % slower for it."""


def give_way_soon() -> None:
    """A thread that computes lets the event loop have its turn after *LONGEST_TURN_S*."""
    sys.setswitchinterval(LONGEST_TURN_S)
