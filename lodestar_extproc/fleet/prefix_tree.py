"""PrefixTree: the prompts that many caches hold, each stored and walked once for all of them.

It knows block hashes and which caches hold them; not which of them a cache gives up first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lodestar_extproc.endpoint import FloatArray

MAX_SETS_AT_HAND = 1024
"""Sets of caches that are at hand as arrays: half a megabyte for 64 endpoints. Not tuned."""
NOWHERE = 0
"""A place that no cache has: where caches hold nothing, by a walk as by `places`."""


class Run:
    """Consecutive blocks that the same caches hold; the runs form a tree.

    Attributes:
        children: by their first block.
        caches: bit mask of the places of the caches that hold all of it.
        ends: of these, the caches for which something ends with it: a prompt, or what prompts
            share; where only others end there, it and what follows are one.
        holders: requests in flight whose prompt it is part of, by the place of their cache.
        n_blocks, last: of its blocks, at hand because every walk asks for them; -1 without any.
    """

    __slots__ = ("blocks", "caches", "children", "ends", "holders", "last", "n_blocks", "parent")

    def __init__(self, blocks: Sequence[int], parent: Run | None, caches: int = 0) -> None:
        self.blocks = blocks
        self.n_blocks = len(blocks)
        self.last = blocks[-1] if blocks else -1
        self.parent = parent
        self.caches = caches
        self.ends = 0
        self.children: dict[int, Run] = {}
        self.holders: dict[int, int] = {}

    def keep(self, blocks: Sequence[int]) -> None:
        """Consist of *blocks* from now on."""
        self.blocks = blocks
        self.n_blocks = len(blocks)
        self.last = blocks[-1] if blocks else -1

    def prompt(self) -> list[int]:
        """All blocks from the beginning of the prompt to the end of this run."""
        runs = [self]
        while (before := runs[-1].parent) is not None:
            runs.append(before)
        return [block for run in reversed(runs) for block in run.blocks]


class PrefixTree:
    """A radix tree of block hashes with the set of caches that hold each run.

    As equal hashes mean equal prefixes, whole runs of blocks are compared at once: a walk costs by
    how often the prompt branches off others, hardly by its length, and not by how many caches there
    are. Whoever holds a run holds all before it.
    """

    def __init__(self) -> None:
        self.root = Run((), None)
        self._free: list[int] = []
        self._n_places = NOWHERE + 1
        self._places: dict[int, NDArray[np.intp]] = {}

    # -- who holds anything ---------------------------------------------------------------------

    def new_place(self) -> int:
        """The place of a new cache, which holds nothing."""
        if self._free:
            return self._free.pop()
        self._n_places += 1
        self._places.clear()
        return self._n_places - 1

    def free(self, place: int) -> None:
        """Whoever had *place* holds nothing any more and is gone."""
        self._free.append(place)
        while self._n_places - 1 in self._free:
            self._n_places -= 1
            self._free.remove(self._n_places)
        self._places.clear()

    # -- what is asked --------------------------------------------------------------------------

    def matched_blocks(self, hashes: Sequence[int]) -> FloatArray:
        """Leading blocks of *hashes* that each cache holds, by its place."""
        matched = np.zeros(self._n_places)
        at, n_hashes, run = 0, len(hashes), self.root
        caches = -1  # all of them
        while at < n_hashes and (child := run.children.get(hashes[at])) is not None:
            here = caches & child.caches
            if at and here != caches:  # some go no further
                matched[self._places_of(caches ^ here)] = at
            if not here:
                return matched
            run, caches = child, here
            end = at + run.n_blocks
            if end > n_hashes or run.last != hashes[end - 1]:
                at += n_common(run.blocks, hashes, at)
                break
            at = end
        if at:
            matched[self._places_of(caches)] = at
        return matched

    def longest_match(self, hashes: Sequence[int]) -> int:
        """Leading blocks of *hashes* that some cache holds."""
        at, n_hashes, children = 0, len(hashes), self.root.children
        while at < n_hashes and (run := children.get(hashes[at])) is not None:
            end = at + run.n_blocks
            if end > n_hashes or run.last != hashes[end - 1]:
                return at + n_common(run.blocks, hashes, at)
            at, children = end, run.children
        return at

    def _places_of(self, caches: int) -> NDArray[np.intp]:
        # Prompts that begin alike are held by the same caches: most sets were met before.
        places = self._places.get(caches)
        if places is None:
            if len(self._places) >= MAX_SETS_AT_HAND:
                self._places.clear()
            every = range(self._n_places)
            places = np.array([place for place in every if caches >> place & 1], np.intp)
            self._places[caches] = places
        return places

    # -- what changes ---------------------------------------------------------------------------

    def path(self, hashes: Sequence[int]) -> tuple[list[Run], int]:
        """The runs that make up the beginning of *hashes*, and its length.

        A run of which only the beginning is part of *hashes* is split.
        """
        found: list[Run] = []
        at, n_hashes, children = 0, len(hashes), self.root.children
        while at < n_hashes and (run := children.get(hashes[at])) is not None:
            end = at + run.n_blocks
            if end > n_hashes or run.last != hashes[end - 1]:
                run = self.split(run, n_common(run.blocks, hashes, at))
            found.append(run)
            at, children = at + run.n_blocks, run.children
        return found, at

    def split(self, run: Run, n_blocks: int) -> Run:
        """Part the first *n_blocks* from *run*, which keeps the rest; returns them."""
        beginning = Run(run.blocks[:n_blocks], run.parent, run.caches)
        assert run.parent is not None
        run.parent.children[beginning.blocks[0]] = beginning
        run.keep(run.blocks[n_blocks:])
        run.parent = beginning
        beginning.children[run.blocks[0]] = run
        beginning.holders = dict(run.holders)
        return beginning

    def grow(self, after: Run, blocks: Sequence[int]) -> Run:
        """Add *blocks*, which nobody holds yet."""
        run = after.children[blocks[0]] = Run(blocks, after)
        return run

    def prune(self, run: Run) -> None:
        """Forget *run* if nobody holds it any more."""
        if not run.caches and run.parent is not None:
            del run.parent.children[run.blocks[0]]


def n_common(blocks: Sequence[int], hashes: Sequence[int], at: int) -> int:
    """How many of *blocks* go on *hashes* from *at*, of which the first is known to; O(log n)."""
    low, high = 1, min(len(blocks), len(hashes) - at)
    if blocks[high - 1] == hashes[at + high - 1]:
        return high
    while low < high - 1:
        middle = (low + high) // 2
        if blocks[middle - 1] == hashes[at + middle - 1]:
            low = middle
        else:
            high = middle
    return low
