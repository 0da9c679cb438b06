"""What was learned, told so that it arrives once: sums with numbers, and those heard of others.

A lost frame takes its sums with it. Whoever sees from the numbers that some are missing asks, and
is told them again; whoever has them passes over them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from lodestar_extproc.generated.lodestar.v1.replicas_pb2 import Frame, LearnedSums
from lodestar_extproc.learning.sample_sums import EndpointSums, SampleSums

MAX_KEPT = 4_096
"""Sums that can be told again, 3 MB: what 64 busy endpoints give in a minute."""
MAX_ASKED = 256
"""For which is asked at once: 200 KB of answer."""


class ToldSums:
    """Of one replica, to all others.

    Attributes:
        gathered: what was learned since the last were told, which the learner fills.
    """

    def __init__(self) -> None:
        self.gathered = SampleSums()
        self._number = 0
        self._kept: dict[int, LearnedSums] = {}
        self._asked: set[int] = set()

    def ask(self, numbers: Iterable[int]) -> None:
        """Somebody missed those of *numbers*."""
        self._asked.update(n for n in islice(numbers, MAX_ASKED) if n in self._kept)

    def write(self, frame: Frame, *, new: bool) -> None:
        """Tell in *frame* what was asked for; and, where *new*, what was learned since."""
        if new:
            for sums in self.gathered.take():
                self._number += 1
                self._kept[self._number] = _written(sums, self._number)
                self._asked.add(self._number)
                if len(self._kept) > MAX_KEPT:
                    del self._kept[next(iter(self._kept))]
        frame.learned.extend(self._kept[n] for n in sorted(self._asked) if n in self._kept)
        self._asked.clear()
        frame.learned_number = self._number
        frame.learned_kept_from = next(iter(self._kept), self._number + 1)


class HeardSums:
    """Which sums of one other replica came.

    Args:
        through: these and those before are not wanted.
    """

    def __init__(self, through: int) -> None:
        self._through = self._highest = through
        self._beyond: set[int] = set()

    def take(self, number: int) -> bool:
        """Sums came; False for those that came before."""
        if number <= self._through or number in self._beyond or len(self._beyond) >= MAX_KEPT:
            return False
        self._beyond.add(number)
        self._advance()
        return True

    def told(self, highest: int, kept_from: int) -> None:
        """Their owner has told as many as *highest*, and those before *kept_from* never again."""
        self._highest = max(self._highest, highest)
        if kept_from - 1 > self._through:
            self._through = kept_from - 1
            self._beyond = {number for number in self._beyond if number > self._through}
            self._advance()

    @property
    def missing(self) -> list[int]:
        """Some of those that did not come, the first ones."""
        return list(islice(self._gaps(), MAX_ASKED))

    def _gaps(self) -> Iterator[int]:
        numbers = range(self._through + 1, self._highest + 1)
        return (number for number in numbers if number not in self._beyond)

    def _advance(self) -> None:
        while self._through + 1 in self._beyond:
            self._through += 1
            self._beyond.remove(self._through)
        self._highest = max(self._highest, self._through)


def told_before(frame: Frame) -> int:
    """The number up to which sums had been told before *frame*."""
    through, here = frame.learned_number, {sums.number for sums in frame.learned}
    while through in here:
        through -= 1
    return int(through)


def _written(sums: EndpointSums, number: int) -> LearnedSums:
    return LearnedSums(
        address=sums.address,
        accelerator=sums.accelerator,
        n_samples=sums.n_samples,
        gram=sums.gram.ravel().tolist(),
        moment=sums.moment.tolist(),
        lowest=sums.lowest.tolist(),
        highest=sums.highest.tolist(),
        number=number,
    )
