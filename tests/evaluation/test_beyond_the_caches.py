"""Sessions that have outgrown all caches are served sooner where one cache is let overflow."""

from __future__ import annotations

from pathlib import Path

import pytest

from lodestar_extproc.evaluation.trial import Cell, Trial, run_trial

BEYOND_PER_S, BELOW_PER_S = 36.0, 20.0
"""What unequal engines with caches of 48,000 tokens are asked for; they tip over at about 26."""
LEARNED = ("learned", "learned:eviction_depth=1")


def served(rate_per_s, n_requests):
    """Seconds to the end of an answer, in the mean, with the price that sees it and without."""
    cell = Cell("agent_sessions", "graphs-48k", "steady", None, (rate_per_s,))
    trial = Trial(cell, 1, n_requests, LEARNED, Path())
    return [result.figures.e2e_mean_s for result in run_trial(trial)]


@pytest.mark.long
def test_beyond_what_caches_hold_answers_end_sooner():
    with_price, without = served(BEYOND_PER_S, 4000)

    assert with_price < 0.8 * without


def test_where_caches_suffice_nothing_is_different():
    with_price, without = served(BELOW_PER_S, 800)

    assert with_price == without
