"""GenerationTimes: how long answers take from their first token to their end.

It sees ends of answers, not tokens; what a policy makes of it is the policy's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lodestar_extproc.endpoint import Endpoint, FloatArray

SMOOTHING = 0.01
"""A memory of a hundred answers: their lengths differ by far more than engines do."""


class GenerationTimes:
    """The mean for each accelerator, and for all of them where one is not known yet.

    Answers are as long on one accelerator as on another, so means differ as engines do.

    >>> times = GenerationTimes()
    >>> fast, slow, other = (Endpoint(f"10.0.0.{i}:80", a) for i, a in enumerate("abc"))
    >>> times.mean_s([fast]).tolist()
    [0.0]
    >>> for _ in range(500):
    ...     times.add("a", 2.0)
    ...     times.add("b", 4.0)
    >>> times.mean_s([fast, slow, other]).round(1).tolist()
    [2.0, 4.0, 3.0]
    """

    def __init__(self) -> None:
        self._means: dict[str | None, tuple[int, float]] = {}

    def add(self, accelerator: str, generation_s: float) -> None:
        """An answer from *accelerator* ended so long after its first token."""
        for key in (None, accelerator):
            n, mean_s = self._means.get(key, (0, 0.0))
            # A plain mean at first, so that the first answer weighs no more than the next.
            mean_s += max(SMOOTHING, 1.0 / (n + 1)) * (generation_s - mean_s)
            self._means[key] = (n + 1, mean_s)

    def mean_s(self, endpoints: Sequence[Endpoint]) -> FloatArray:
        """Seconds from first token to end, [n]; 0 before any answer has ended."""
        of_all = self._means.get(None, (0, 0.0))
        return np.array([self._means.get(e.accelerator, of_all)[1] for e in endpoints])
