"""PrefixIndex: which prompt blocks one endpoint's KV cache probably holds.

It knows block hashes only, not whose prompt they came from; the engine's true evictions are not
seen, so a match is an estimate.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np


class PrefixIndex:
    """An LRU of block hashes, sized like the engine's cache.

    Blocks of a prompt are touched from last to first, so the first is the most recent and a prompt
    loses its end before its beginning. Hence a block is present only if all before it are, and the
    match length is found by bisection.

    >>> index = PrefixIndex(capacity_blocks=3)
    >>> index.insert([1, 2, 3]), index.match([1, 2, 9])
    (3, 2)
    >>> index.insert([7]), index.match([1, 2, 3])
    (1, 2)
    """

    def __init__(self, capacity_blocks: int) -> None:
        self._blocks: OrderedDict[int, None] = OrderedDict()
        self._capacity_blocks = capacity_blocks

    def __len__(self) -> int:
        return len(self._blocks)

    def match(self, hashes: Sequence[int]) -> int:
        """Leading blocks of *hashes* that are present; O(log n)."""
        blocks = self._blocks
        if not hashes or hashes[0] not in blocks:
            return 0
        low, high = 1, len(hashes)
        while low < high:
            middle = (low + high + 1) // 2
            if hashes[middle - 1] in blocks:
                low = middle
            else:
                high = middle - 1
        return low

    def insert(self, hashes: Sequence[int]) -> int:
        """Touch all of *hashes*; returns how many were new."""
        blocks = self._blocks
        before = len(blocks)
        for block in reversed(hashes):
            blocks[block] = None
            blocks.move_to_end(block)
        new = len(blocks) - before
        self._evict()
        return new

    def remove(self, hashes: Sequence[int]) -> None:
        """Forget *hashes*: the prompt they belong to never reached the cache."""
        for block in hashes:
            self._blocks.pop(block, None)

    def resize(self, capacity_blocks: int) -> None:
        """Adopt the capacity the engine reports."""
        self._capacity_blocks = capacity_blocks
        self._evict()

    def clear(self) -> None:
        """Forget everything: the engine restarted."""
        self._blocks.clear()

    def _evict(self) -> None:
        while len(self._blocks) > self._capacity_blocks:
            self._blocks.popitem(last=False)


def matched_blocks(indexes: Sequence[PrefixIndex | None], hashes: Sequence[int]) -> np.ndarray:
    """Leading blocks of *hashes* in each index, float64 [n]; None caches nothing."""
    return np.array([0.0 if x is None else x.match(hashes) for x in indexes], dtype=np.float64)
