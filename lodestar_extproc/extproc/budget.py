"""What reading one body may cost, and OverBudget: the word for a body that would cost more.

It knows bytes of JSON, not what they say. Costs are bounded before they arise: what a JSON reader
would make of a body is told from its punctuation.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

import numpy as np

from lodestar_extproc.extproc.quotes import SLICE_BYTES, StringEdges

DICT_BYTES, LIST_BYTES, VALUE_BYTES = 256, 96, 60
"""What orjson makes of `{"a":1}`, `[1]` and a number, with its place in what holds it.

By sys.getsizeof on CPython 3.11 to 3.14 with the header of its garbage collector, rounded up.
"""
MAX_OBJECT_BYTES = 8 * 2**20
"""Objects of one body. 140,000 token ids or 30,000 objects: an agent's chat of 1,000 messages has
10,000. With three copies of a body on their way it keeps below 4 times its size and 20 MiB."""
MAX_ITEMS = 100_000
"""Values that are looked at one by one; ten times those of an agent's chat of 1,000 messages."""
MAX_STEP_ITEMS = 3000
"""Of those, in one tool, one message or one part of unknown shape: 4 ms. A judgement: a tool of a
large agent has 200."""
MAX_NESTING = 100
"""Levels of a value of unknown shape. A judgement: schemas of tools have 10 to 20."""
MAX_WORK_S = 0.2
"""Of reading one body, waiting for those before it apart."""
MAX_WAIT_S = 0.3
"""From its coming to its end. Envoy waits 0.5 s for a reply in the files that are shipped
(`message_timeout`), and goes on without one then."""
UNCOUNTED_BYTES = 32 * 2**10
"""So short a body makes less than a quarter of `MAX_OBJECT_BYTES`, whatever stands in it."""


class Limit(StrEnum):
    """What a body was beyond."""

    ITEMS = "items"
    BYTES = "bytes"
    NESTING = "nesting"
    TIME = "time"
    PROCESS = "process"
    """The process that read it ended over it."""


class OverBudget(Exception):  # noqa: N818  (the condition's name)
    """Reading the body would cost more than one body may: it is known by its size alone."""

    def __init__(self, limit: Limit) -> None:
        super().__init__(f"the body is over the budget of {limit}")
        self.limit = limit


class Budget:
    """Values of one body that are still to be looked at, in all and in one step."""

    __slots__ = ("_items_left", "_step_left")

    def __init__(self) -> None:
        self._items_left = MAX_ITEMS
        self._step_left = MAX_STEP_ITEMS

    def step(self) -> None:
        """Others may have their turn now."""
        self._step_left = MAX_STEP_ITEMS

    def list(self, n_items: int) -> None:
        """Come to a list of *n_items*, each of which is a step.

        Raises:
            OverBudget: more than `MAX_ITEMS` in all.
        """
        self._items_left -= n_items
        if self._items_left < 0:
            raise OverBudget(Limit.ITEMS)

    def spend(self, n_items: int) -> None:
        """Look at *n_items* more in this step.

        Raises:
            OverBudget: more than `MAX_ITEMS` in all, or `MAX_STEP_ITEMS` in this step.
        """
        self.list(n_items)
        self._step_left -= n_items
        if self._step_left < 0:
            raise OverBudget(Limit.ITEMS)


def hold_objects(body: bytes) -> Iterator[None]:
    """Make sure, in slices, that a JSON reader makes at most `MAX_OBJECT_BYTES` of *body*.

    Punctuation is counted wherever it stands, and outside of strings only where that is too much:
    texts have commas too.

    Raises:
        OverBudget: it would make more.
    """
    if len(body) <= UNCOUNTED_BYTES:
        return
    text, n_bytes = np.frombuffer(body, np.uint8), 0
    for start in range(0, len(body), SLICE_BYTES):
        n_bytes += _object_bytes(text[start : start + SLICE_BYTES])
        yield
    if n_bytes <= MAX_OBJECT_BYTES:
        return
    edges, n_bytes = StringEdges(body), 0
    for start in range(0, len(body), SLICE_BYTES):
        n_bytes += _object_bytes(edges.outside(start))
        if n_bytes > MAX_OBJECT_BYTES:
            raise OverBudget(Limit.ITEMS)
        yield


def _object_bytes(characters: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> int:
    """The most that these characters' objects, lists and values take."""
    count = np.count_nonzero
    return int(
        DICT_BYTES * count(characters == ord("{"))
        + LIST_BYTES * count(characters == ord("["))
        + VALUE_BYTES * count(characters == ord(","))
    )
