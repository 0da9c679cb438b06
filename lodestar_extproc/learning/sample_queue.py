"""SampleQueue: samples that wait to be learned, in the order in which they came.

Learning need not be done while a first token waits to pass. It knows neither what learns nor what
time it is: whoever serves says how to be called later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from lodestar_extproc.learning.sample import TrainingSample

DELAY_S = 0.05
"""A sample waits so long at most: shorter than any time to first token that one might learn of."""
AT_ONCE_SAMPLES = 10
"""Learned in one go, half a millisecond: those who decide meanwhile come in between."""

Later = Callable[[float, Callable[[], None]], object]
"""Calls the second in so many seconds, as `asyncio`'s `call_later` does."""


class SampleQueue:
    """Learns at once, until it is told how to be called later.

    Args:
        learn: takes in one sample.
    """

    def __init__(self, learn: Callable[[TrainingSample], None]) -> None:
        self._learn = learn
        self._later: Later | None = None
        self._waiting: deque[TrainingSample] = deque()
        self._is_due = False

    def __len__(self) -> int:
        return len(self._waiting)

    def learn_later(self, later: Later | None) -> None:
        """Let samples wait from now on, to be learned by *later*; None for at once, as before."""
        self._later = later
        if later is None:
            self.catch_up()

    def add(self, sample: TrainingSample) -> None:
        """Learn *sample*, now or within `DELAY_S`."""
        self._waiting.append(sample)
        if self._later is None:
            self.catch_up()
        elif not self._is_due:
            self._is_due = True
            self._later(DELAY_S, self._learn_some)

    def catch_up(self) -> None:
        """Learn all that wait."""
        while self._waiting:
            self._learn(self._waiting.popleft())

    def _learn_some(self) -> None:
        self._is_due = False
        try:
            for _ in range(min(AT_ONCE_SAMPLES, len(self._waiting))):
                self._learn(self._waiting.popleft())
        finally:
            # Also where one could not be learned: the others are.
            if self._waiting and self._later is not None:
                self._is_due = True
                self._later(0.0, self._learn_some)
