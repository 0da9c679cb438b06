"""Several routers that share decide nearly as one; the ratios are of the same arrivals."""

from __future__ import annotations

from pathlib import Path

import pytest

from lodestar_extproc.evaluation.frames import Trouble
from lodestar_extproc.evaluation.router_counts import (
    router_json,
    router_ratios,
    router_rows,
    router_scenarios,
)
from lodestar_extproc.evaluation.scenarios import find_scenario
from lodestar_extproc.evaluation.trial import Cell, Trial, TrialResult, run_trial

RATE_PER_S = 14.0


def outcomes(*scenarios: str, n_requests: int = 600) -> list[TrialResult]:
    """Of the learned policy, on the same arrivals."""
    cells = [Cell("prefix50", "a30x8", name, 0.8, (RATE_PER_S,)) for name in scenarios]
    trials = [Trial(cell, 1, n_requests, ("learned",), Path()) for cell in cells]
    return [outcome for trial in trials for outcome in run_trial(trial)]


def test_one_router_is_always_compared_with():
    names = router_scenarios([4, 2, 2], 30, 0.05)

    assert names == (
        "routers 1",
        "routers 2 share 30ms loss 0.05",
        "routers 4 share 30ms loss 0.05",
    )
    found = find_scenario(names[1])
    assert found.n_routers == 2
    assert (found.frames.interval_s, found.frames.loss_ratio) == (0.03, 0.05)
    assert find_scenario(names[0]).frames is None


@pytest.mark.parametrize("name", ["routers", "routers two", "routers 2 share 30"])
def test_a_scenario_that_is_none_is_refused(name):
    with pytest.raises(ValueError, match="no scenario"):
        find_scenario(name)


@pytest.mark.long
def test_routers_that_share_lose_far_less_than_those_that_do_not():
    found = outcomes("routers 1", "routers 4 share 30ms", n_requests=1500)
    alone = outcomes("routers 1", "routers 4", n_requests=1500)

    shared = router_ratios(found)[4]["ttft_mean"].value
    apart = router_ratios(alone)[4]["ttft_mean"].value
    assert shared < 1.15
    assert apart > 1.5


def test_ratios_are_over_one_router():
    found = outcomes("routers 1", "routers 2 share 30ms")
    by_hand = found[1].figures.ttft_p99_s / found[0].figures.ttft_p99_s

    assert router_json(found)["2"]["ttft_p99"] == pytest.approx(by_hand)
    assert router_json(found)["1"] == {"ttft_mean": 1.0, "ttft_p99": 1.0, "cells": 1}
    assert router_rows(found)[0][0] == "routers"


@pytest.mark.long
@pytest.mark.parametrize("trouble", [Trouble.PARTED, Trouble.DIES])
def test_where_one_router_is_cut_off_or_dies_all_requests_are_served_and_the_rest_decide_well(
    trouble,
):
    one, several = router_scenarios([4], 30, trouble=trouble)
    found = outcomes(one, several, n_requests=1500)

    assert find_scenario(several).frames.trouble is trouble
    assert router_ratios(found)[4]["ttft_mean"].value < 1.4  # 2 and more where nothing is shared


def test_a_router_that_is_retired_gets_no_more_requests_and_ends_those_it_has():
    (outcome,) = outcomes("routers 2 share 30ms dies", n_requests=300)

    assert outcome.figures.failed == 0
