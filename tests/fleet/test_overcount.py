"""Requests whose ends went elsewhere are found by what engines report, and no others."""

from __future__ import annotations

import pytest

from builders import a_fleet, dispatch
from lodestar_extproc.endpoint import EndpointMetrics
from lodestar_extproc.fleet.overcount import SETTLE_AFTER_S

ADDRESS = "10.0.0.1:8000"


def over_after(fleet, seconds: float, *, running: float | None, from_s: float = 0.0) -> list[str]:
    """All that is said to be over while each second the engine reports *running* requests."""
    over: list[str] = []
    for second in range(int(from_s), int(from_s + seconds)):
        metrics = EndpointMetrics(running_requests=running, waiting_requests=0.0)
        fleet.record_metrics(ADDRESS, metrics, float(second))
        found = fleet.overcounted(float(second))
        for decision_id in found:
            fleet.release(decision_id, float(second))
        over += found
    return over


def busy_fleet(n: int):
    fleet = a_fleet(1)
    for i in range(n):
        dispatch(fleet, f"d{i}", ADDRESS, at_s=0.0)
        fleet.first_token(f"d{i}", 0.5)
    return fleet


def test_the_oldest_of_those_the_engine_does_not_have_are_over():
    fleet = busy_fleet(5)

    assert over_after(fleet, 3 * SETTLE_AFTER_S, running=2.0) == ["d0", "d1", "d2"]
    assert fleet.n_in_flight == 2


def test_an_engine_that_has_as_many_ends_none():
    assert over_after(busy_fleet(5), 6 * SETTLE_AFTER_S, running=5.0) == []


def test_requests_of_other_replicas_end_none_of_ours():
    assert over_after(busy_fleet(5), 6 * SETTLE_AFTER_S, running=50.0) == []


@pytest.mark.parametrize("running", [None, 0.0])
def test_an_engine_that_reports_nothing_or_always_none_is_not_believed(running):
    assert over_after(busy_fleet(5), 6 * SETTLE_AFTER_S, running=running) == []


def test_an_engine_that_ran_some_and_is_idle_now_is_believed():
    fleet = busy_fleet(3)
    over_after(fleet, 2, running=3.0)

    assert over_after(fleet, 3 * SETTLE_AFTER_S, running=0.0, from_s=2) == ["d0", "d1", "d2"]


def test_ends_that_are_late_while_others_come_are_waited_for():
    """One request a second, each over after a second and told of a second later."""
    fleet, over = a_fleet(1), []
    for second in range(60):
        at_s = float(second)
        dispatch(fleet, f"d{second}", ADDRESS, at_s=at_s)
        metrics = EndpointMetrics(running_requests=1.0, waiting_requests=0.0)
        fleet.record_metrics(ADDRESS, metrics, at_s)
        fleet.release(f"d{second - 2}", at_s)
        over += fleet.overcounted(at_s)

    assert over == []
