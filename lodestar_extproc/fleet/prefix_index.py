"""PrefixIndex: which prompt blocks one endpoint's KV cache probably holds.

It knows block hashes only, not whose prompt they came from; the engine's true evictions are not
seen, so a match is an estimate.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence


class Run:
    """Consecutive blocks that were always touched together; the runs form a tree.

    Attributes:
        children: by their first block.
        n_holders: requests in flight whose prompt it is part of.
        n_blocks, last: of its blocks, at hand because every walk asks for them; -1 without any.
    """

    __slots__ = ("blocks", "children", "last", "n_blocks", "n_holders", "parent")

    def __init__(self, blocks: Sequence[int], parent: Run | None) -> None:
        self.keep(blocks)
        self.parent = parent
        self.children: dict[int, Run] = {}
        self.n_holders = 0

    def keep(self, blocks: Sequence[int]) -> None:
        """Consist of *blocks* from now on."""
        self.blocks = blocks
        self.n_blocks = len(blocks)
        self.last = blocks[-1] if blocks else -1


class PrefixIndex:
    """An LRU of block hashes, sized like the engine's cache.

    Blocks of a prompt are touched from last to first, so the first is the most recent and a prompt
    loses its end before its beginning. Hence a block is present only if all before it are. As equal
    hashes mean equal prefixes, whole runs of blocks are compared and touched at once: the cost
    depends on how often the prompt branches off others, hardly on its length.

    Blocks of requests in flight cannot be evicted: these hold them, and their end is what counts as
    the last touch, as in vLLM, which frees a request's blocks when it ends and reuses first what
    was freed first.

    >>> index = PrefixIndex(capacity_blocks=3)
    >>> index.insert([1, 2, 3]), index.match([1, 2, 9])
    (3, 2)
    >>> index.insert([7]), index.match([1, 2, 3])
    (1, 2)
    """

    def __init__(self, capacity_blocks: int) -> None:
        self.root = Run((), None)
        # Those that nobody holds, from the least to the most recently touched; the first is always
        # a leaf of the tree, for whoever holds a run holds all before it.
        self._runs: OrderedDict[Run, None] = OrderedDict()
        self._n_blocks = 0
        self._n_aside = 0
        self._capacity_blocks = capacity_blocks

    def __len__(self) -> int:
        return self._n_blocks

    def match(self, hashes: Sequence[int]) -> int:
        """Leading blocks of *hashes* that are present."""
        return matched_blocks((self,), hashes)[0]

    def insert(self, hashes: Sequence[int]) -> int:
        """Touch all of *hashes*, slices of which are kept; returns how many were new."""
        path, n_new = self._grown(hashes)
        for run in reversed(path):
            if run.n_holders == 0:
                self._runs.move_to_end(run)
        self._evict()
        return n_new

    def hold(self, hashes: Sequence[int]) -> Run:
        """Keep all of *hashes*, however many, until what is returned is let go."""
        path, _ = self._grown(hashes)
        for run in path:
            if run.n_holders == 0:
                del self._runs[run]
            run.n_holders += 1
        self._evict()
        return path[-1] if path else self.root

    def let_go(self, last: Run) -> None:
        """Whoever held the prompt that ends with *last* has ended: now it was touched last."""
        path = [last]
        while (parent := path[-1].parent) is not None:
            path.append(parent)
        if path.pop() is not self.root:
            return  # all was forgotten meanwhile
        for run in path:
            run.n_holders -= 1
            if run.n_holders == 0:
                self._runs[run] = None
        self._evict()

    def set_aside(self, n_blocks: int) -> None:
        """So much of the capacity is taken by blocks of others' answers, until told anew."""
        self._n_aside = n_blocks

    def remove(self, hashes: Sequence[int]) -> None:
        """Forget what *hashes* do not share with others: their prompt never reached the cache."""
        path, _ = self._path(hashes)
        if path and not path[-1].children and path[-1].n_holders == 0:
            self._detach(path[-1])

    def resize(self, capacity_blocks: int) -> None:
        """Adopt the capacity the engine reports."""
        if capacity_blocks != self._capacity_blocks:
            self._capacity_blocks = capacity_blocks
            self._evict()

    def clear(self) -> None:
        """Forget everything: the engine restarted."""
        self.root = Run((), None)
        self._runs.clear()
        self._n_blocks = 0

    def _grown(self, hashes: Sequence[int]) -> tuple[list[Run], int]:
        """The runs that make up *hashes*, all of them, and how many blocks are new."""
        path, at = self._path(hashes)
        n_new = len(hashes) - at
        if n_new:
            leaf = Run(hashes[at:], path[-1] if path else self.root)
            self._attach(leaf)
            path.append(leaf)
        return path, n_new

    def _path(self, hashes: Sequence[int]) -> tuple[list[Run], int]:
        """The runs that make up the beginning of *hashes*, and its length.

        A run of which only the beginning is part of *hashes* is split.
        """
        path: list[Run] = []
        at, n_hashes, children = 0, len(hashes), self.root.children
        while at < n_hashes and (run := children.get(hashes[at])) is not None:
            end = at + run.n_blocks
            if end > n_hashes or run.last != hashes[end - 1]:
                run = self._split(run, _n_common(run.blocks, hashes, at))
            path.append(run)
            at, children = at + run.n_blocks, run.children
        return path, at

    def _split(self, run: Run, n_blocks: int) -> Run:
        """Part the first *n_blocks* from *run*, which keeps the rest and its place; returns them.

        The beginning lies before the rest in time too, until it is touched.
        """
        beginning = Run(run.blocks[:n_blocks], run.parent)
        assert run.parent is not None
        run.parent.children[beginning.blocks[0]] = beginning
        run.keep(run.blocks[n_blocks:])
        run.parent = beginning
        beginning.children[run.blocks[0]] = run
        beginning.n_holders = run.n_holders
        if beginning.n_holders == 0:
            self._runs[beginning] = None
        return beginning

    def _attach(self, run: Run) -> None:
        assert run.parent is not None
        run.parent.children[run.blocks[0]] = run
        self._runs[run] = None
        self._n_blocks += run.n_blocks

    def _detach(self, run: Run) -> None:
        assert run.parent is not None
        del run.parent.children[run.blocks[0]]
        del self._runs[run]
        self._n_blocks -= run.n_blocks

    def _evict(self) -> None:
        most = self._capacity_blocks - self._n_aside
        while (surplus := self._n_blocks - most) > 0 and self._runs:
            oldest = next(iter(self._runs))
            if oldest.n_blocks <= surplus:
                self._detach(oldest)
            else:
                oldest.keep(oldest.blocks[:-surplus])
                self._n_blocks -= surplus


def matched_blocks(indexes: Iterable[PrefixIndex | None], hashes: Sequence[int]) -> list[int]:
    """Leading blocks of *hashes* in each index; None caches nothing.

    One function for all: every decision asks every index, and a call costs as much as the walk.
    """
    n_hashes, matched = len(hashes), []
    for index in indexes:
        at, children = 0, {} if index is None else index.root.children
        while at < n_hashes and (run := children.get(hashes[at])) is not None:
            end = at + run.n_blocks
            if end > n_hashes or run.last != hashes[end - 1]:
                at += _n_common(run.blocks, hashes, at)
                break
            at, children = end, run.children
        matched.append(at)
    return matched


def _n_common(blocks: Sequence[int], hashes: Sequence[int], at: int) -> int:
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
