"""PrefixIndex: which prompt blocks one endpoint's KV cache probably holds.

It knows block hashes only, not whose prompt they came from; the engine's true evictions are not
seen, so a match is an estimate.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from lodestar_extproc.fleet.prefix_tree import PrefixTree, Run


class HeldRun(NamedTuple):
    """The end of a prompt that is kept; *lifetime* tells whether all was forgotten since."""

    run: Run
    lifetime: object


class PrefixIndex:
    """An LRU of block hashes, sized like the engine's cache; its runs stand in a tree with others'.

    Blocks of a prompt are touched from last to first, so the first is the most recent and a prompt
    loses its end before its beginning. Hence a block is present only if all before it are.

    Blocks of requests in flight cannot be evicted: these hold them, and their end is what counts as
    the last touch, as in vLLM, which frees a request's blocks when it ends and reuses first what
    was freed first.

    Args:
        tree: of all caches that are to be asked together; None for one alone.

    >>> index = PrefixIndex(capacity_blocks=3)
    >>> index.insert([1, 2, 3]), index.match([1, 2, 9])
    (3, 2)
    >>> index.insert([7]), index.match([1, 2, 3])
    (1, 2)
    """

    def __init__(self, capacity_blocks: int, tree: PrefixTree | None = None) -> None:
        self._tree = PrefixTree() if tree is None else tree
        self.place = self._tree.new_place()
        self._bit = 1 << self.place
        # Those that nobody holds here, from the least to the most recently touched; the first is
        # always the last of its prompt here, for whoever holds a run holds all before it. A run
        # that another cache has split in two stands here once, for both.
        self._runs: OrderedDict[Run, None] = OrderedDict()
        self._n_blocks = 0
        self._n_aside = 0
        self._capacity_blocks = capacity_blocks
        self._lifetime = object()

    def __len__(self) -> int:
        return self._n_blocks

    def match(self, hashes: Sequence[int]) -> int:
        """Leading blocks of *hashes* that are present."""
        return int(self._tree.matched_blocks(hashes)[self.place])

    def insert(self, hashes: Sequence[int]) -> int:
        """Touch all of *hashes*, slices of which are kept; returns how many were new."""
        path, n_new = self._grown(hashes)
        for run in reversed(path):
            if self.place not in run.holders:
                self._touch(run)
        self._evict()
        return n_new

    def hold(self, hashes: Sequence[int]) -> tuple[HeldRun, int]:
        """Keep all of *hashes*, however many, until what is returned is let go.

        Returns the end of the prompt, and how many blocks were new.
        """
        path, n_new = self._grown(hashes)
        place = self.place
        for run in path:
            n_holders = run.holders.get(place, 0)
            if n_holders == 0:
                self._runs.pop(run, None)
            run.holders[place] = n_holders + 1
        self._evict()
        return HeldRun(path[-1] if path else self._tree.root, self._lifetime), n_new

    def let_go(self, held: HeldRun) -> None:
        """Whoever held the prompt that ends there has ended: now it was touched last."""
        if held.lifetime != self._lifetime:
            return  # all was forgotten meanwhile
        run, place = held.run, self.place
        while run.parent is not None:
            n_holders = run.holders.pop(place)
            if n_holders > 1:
                run.holders[place] = n_holders - 1
            else:
                self._runs[run] = None
            run = run.parent
        self._evict()

    def set_aside(self, n_blocks: int) -> None:
        """So much of the capacity is taken by blocks of others' answers, until told anew."""
        self._n_aside = n_blocks

    def prompts(self, most_blocks: int) -> list[list[int]]:
        """What it holds, prompt by prompt, the most recent first, of so many blocks at most.

        What only requests in flight hold is not among them.
        """
        found: list[list[int]] = []
        for run in reversed(self._runs):
            if any(child.caches & self._bit for child in run.children.values()):
                continue
            hashes = run.prompt()
            most_blocks -= len(hashes)
            if most_blocks < 0:
                break
            found.append(hashes)
        return found

    def remove(self, hashes: Sequence[int]) -> None:
        """Forget what *hashes* do not share with others: their prompt never reached the cache."""
        path, _, n_here = self._path(hashes)
        if n_here == 0:
            return
        last, bit = path[n_here - 1], self._bit
        if self.place in last.holders or any(c.caches & bit for c in last.children.values()):
            return
        for run in self._one(last):
            self._drop(run)

    def cut(self, hashes: Sequence[int], n_kept: int, n_gone: int) -> None:
        """Its engine has given up the end of a prompt; what is in flight there is kept.

        Args:
            n_kept: of its blocks, those that are still there.
            n_gone: whatever goes on from its first *n_gone* blocks is gone as well.
        """
        beginning = hashes[:n_gone]
        path, _, n_here = self._path(beginning)
        path, n_blocks = path[:n_here], sum(run.n_blocks for run in path[:n_here])
        if n_blocks == n_gone and path:
            self._drop_after(path[-1])
        while path and n_blocks > n_kept and not self._goes_on(path[-1]):
            run = path.pop()
            n_blocks -= run.n_blocks
            if n_blocks < n_kept:
                self._tree.split(run, n_kept - n_blocks)
            self._drop(run)

    def empty(self) -> None:
        """Its engine has given up everything; what is in flight is kept, and comes after that."""
        self._drop_after(self._tree.root)

    def _drop_after(self, run: Run) -> None:
        """Forget all that goes on from *run*, but for what is in flight."""
        after, place = [run], self.place
        for each in after:
            after += [c for c in each.children.values() if c.caches & self._bit]
        for each in reversed(after[1:]):
            if place not in each.holders and not self._goes_on(each):
                self._drop(each)

    def _goes_on(self, run: Run) -> bool:
        """Whether it is in flight here, or anything here goes on from it."""
        if self.place in run.holders:
            return True
        return any(child.caches & self._bit for child in run.children.values())

    def resize(self, capacity_blocks: int) -> None:
        """Adopt the capacity the engine reports."""
        if capacity_blocks != self._capacity_blocks:
            self._capacity_blocks = capacity_blocks
            self._evict()

    def clear(self) -> None:
        """Forget everything: the engine restarted."""
        runs = [self._tree.root]
        while runs:
            for run in list(runs.pop().children.values()):
                if run.caches & self._bit:
                    runs.append(run)
                    run.caches ^= self._bit
                    run.ends &= ~self._bit
                    run.holders.pop(self.place, None)
                    self._tree.prune(run)
        self._runs.clear()
        self._n_blocks = 0
        self._lifetime = object()

    def close(self) -> None:
        """Forget everything and leave the tree: the endpoint is gone."""
        self.clear()
        self._tree.free(self.place)

    def _grown(self, hashes: Sequence[int]) -> tuple[list[Run], int]:
        """The runs that make up *hashes*, all here from now on, and how many blocks are new."""
        path, at, n_here = self._path(hashes)
        if at < len(hashes):
            path.append(self._tree.grow(path[-1] if path else self._tree.root, hashes[at:]))
        n_new, bit = 0, self._bit
        for run in path[n_here:]:
            run.caches |= bit
            n_new += run.n_blocks
        if n_new:
            path[-1].ends |= bit
            self._n_blocks += n_new
        return path, n_new

    def _path(self, hashes: Sequence[int]) -> tuple[list[Run], int, int]:
        """As of the tree, and how many of the runs are here.

        With the last of these something ends here from now on.
        """
        path, at = self._tree.path(hashes)
        n_here, bit = len(path), self._bit
        while n_here and not path[n_here - 1].caches & bit:
            n_here -= 1
        if n_here:
            path[n_here - 1].ends |= bit
        return path, at, n_here

    def _one(self, last: Run) -> list[Run]:
        """The runs up to *last* that are one here, and that others have split; last first."""
        runs = [last]
        while (before := runs[-1].parent) is not None and before.parent is not None:
            if before.ends & self._bit:
                break
            runs.append(before)
        return runs

    def _touch(self, run: Run) -> None:
        self._runs[run] = None
        self._runs.move_to_end(run)

    def _drop(self, run: Run) -> None:
        """Forget *run* here, where nothing goes on from it."""
        self._runs.pop(run, None)
        run.caches ^= self._bit
        run.ends &= ~self._bit
        self._n_blocks -= run.n_blocks
        before = run.parent
        self._tree.prune(run)
        if before is not None and before.parent is not None:
            self._follow(before)

    def _follow(self, before: Run) -> None:
        """A run that was split by others stood here once: now it is its beginning's turn."""
        if before not in self._runs and self.place not in before.holders:
            self._runs[before] = None
            self._runs.move_to_end(before, last=False)

    def _evict(self) -> None:
        most = self._capacity_blocks - self._n_aside
        while (surplus := self._n_blocks - most) > 0 and self._runs:
            oldest = next(iter(self._runs))
            if oldest.n_blocks <= surplus:
                self._drop(oldest)
            elif oldest.caches == self._bit:
                oldest.keep(oldest.blocks[:-surplus])
                self._n_blocks -= surplus
            else:
                self._tree.split(oldest, oldest.n_blocks - surplus)
                self._drop(oldest)
