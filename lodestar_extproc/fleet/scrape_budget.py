"""ScrapeBudget: how much of a core all scrapers may take, and how far that stretches their pace.

It measures nothing itself and waits for nothing: scrapers tell what a scrape took, and ask.
"""

from __future__ import annotations

BUDGET_CORES = 0.2
"""Of all pools. Deciding for 100 requests a second takes as much again (docs/results/cost.md): the
two share one core, and requests come first."""
UNSEEN_S = 100e-6
"""What a scrape takes beside what can be timed: sending, receiving and waking up. Measured:
`unseen_us` of benchmarks/scraping.py."""
SMOOTHING = 1 / 64
"""Weight of one scrape in what a scrape takes: a fleet's pages are alike."""


class ScrapeBudget:
    """Shared by the scrapers of one process."""

    def __init__(self, cores: float = BUDGET_CORES) -> None:
        self.cores = cores
        self._paces: list[ScrapePace] = []

    def new_pace(self) -> ScrapePace:
        """The pace of one more scraper."""
        pace = ScrapePace(self)
        self._paces.append(pace)
        return pace

    @property
    def stretch(self) -> float:
        """By how much every interval is longer than was asked for; 1 where the budget suffices."""
        return max(1.0, sum(pace.wanted_cores for pace in self._paces) / self.cores)


class ScrapePace:
    """How often one scraper may read.

    Attributes:
        wanted_cores: what its reads would take at the interval it asked for last.
    """

    def __init__(self, budget: ScrapeBudget) -> None:
        self._budget = budget
        self._scrape_s = UNSEEN_S
        self.wanted_cores = 0.0

    @property
    def scrape_s(self) -> float:
        """How long a scrape keeps a core, by the last ones."""
        return self._scrape_s

    def spent(self, seen_s: float) -> None:
        """A scrape took *seen_s* of CPU, as far as that could be timed.

        CPU, not time that passed: on a busy machine that would be the others' too.
        """
        self._scrape_s += SMOOTHING * (seen_s + UNSEEN_S - self._scrape_s)

    def ask(self, n_pages: float, wanted_s: float) -> float:
        """Wish to read *n_pages* every *wanted_s*; how long it shall be."""
        self.wanted_cores = n_pages * self._scrape_s / wanted_s
        return wanted_s * self._budget.stretch

    @property
    def stretch(self) -> float:
        """See `ScrapeBudget`."""
        return self._budget.stretch
