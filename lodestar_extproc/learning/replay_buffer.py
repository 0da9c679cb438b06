"""ReplayBuffer: the samples a batch training sees: the latest, and a varied choice of older ones.

It holds rows of numbers and does not know what they mean.
"""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
N_COMPARED = 8
"""Kept rows that a new one is compared with: all of them would hold up the event loop."""


class ReplayBuffer:
    """The last *recent* rows, and *older* rows of those before them.

    A row that is no longer recent replaces the most similar of a few random older ones, so that
    rare situations stay and common ones do not fill the store. Constant memory and time.

    Args:
        width: numbers a row.
        rng: draws the rows to compare with.
    """

    def __init__(
        self, width: int, rng: random.Random, *, recent: int = 5000, older: int = 5000
    ) -> None:
        self._recent = np.zeros((recent, width), np.float32)
        self._older = np.zeros((older, width), np.float32)
        self._n_added = 0
        self._n_older = 0
        self._rng = rng

    def __len__(self) -> int:
        return min(self._n_added, len(self._recent)) + self._n_older

    def add(self, row: Rows) -> None:
        """Take in the newest row, [width]."""
        place = self._n_added % len(self._recent)
        if self._n_added >= len(self._recent):
            self._keep(self._recent[place])
        self._recent[place] = row
        self._n_added += 1

    def rows(self) -> Rows:
        """All rows, [len, width], a copy, in no order."""
        return np.concatenate([self._older[: self._n_older], self._recent[: self._n_added]])

    def _keep(self, row: Rows) -> None:
        if self._n_older < len(self._older):
            self._older[self._n_older] = row
            self._n_older += 1
            return
        if self._n_older == 0:
            return
        places = [self._rng.randrange(self._n_older) for _ in range(N_COMPARED)]
        kept = self._older[places]
        # Relative to their own size: features differ by orders of magnitude.
        distance = np.abs(kept - row) / (np.abs(kept).mean(axis=0) + np.abs(row) + 1e-6)
        self._older[places[int(distance.sum(axis=1).argmin())]] = row
