"""An endpoint that stands still in the middle of answers, by its counter or by what is watched."""

import pytest

from builders import a_fleet, a_prompt, a_request, dispatch
from lodestar_extproc.endpoint import EndpointMetrics
from lodestar_extproc.fleet.health_state import HealthState
from lodestar_extproc.fleet.stalls import StallDetector

A, B = "10.0.0.1:8000", "10.0.0.2:8000"


def a_fleet_at_work(at_s=0.0):
    """Both generate, and are watched."""
    fleet = a_fleet(2, frozen_after_s=5.0)
    for name, address in (("a", A), ("b", B)):
        dispatch(fleet, name, address, a_request(a_prompt(100)), at_s)
        fleet.first_token(name, at_s, watched=True)
    return fleet


def scrape(fleet, address, tokens, at_s, running=1.0):
    metrics = EndpointMetrics(running_requests=running, generation_tokens=tokens)
    fleet.record_metrics(address, metrics, at_s)


def states(fleet, at_s):
    fleet.snapshot(at_s)
    return [fleet.health.state(address, at_s) for address in (A, B)]


def test_an_answer_that_stops_while_others_go_on_takes_its_engine_out():
    fleet = a_fleet_at_work()
    for at_s in range(1, 8):
        fleet.stalls.progressed("b", float(at_s))
    assert states(fleet, 4.9) == [HealthState.HEALTHY] * 2
    assert states(fleet, 7.0) == [HealthState.EJECTED, HealthState.HEALTHY]


def test_where_all_stand_still_nobody_is_blamed():
    assert states(a_fleet_at_work(), 60.0) == [HealthState.HEALTHY] * 2


def test_several_silent_answers_are_found_out_sooner_than_one():
    fleet = a_fleet_at_work()
    for i in range(4):
        dispatch(fleet, f"a{i}", A, a_request(a_prompt(100)), 0.0)
        fleet.first_token(f"a{i}", 0.1, watched=True)
    fleet.stalls.progressed("b", 2.0)

    assert states(fleet, 2.0) == [HealthState.EJECTED, HealthState.HEALTHY]


def test_a_counter_that_stands_still_while_requests_run_tells_it_alone():
    fleet = a_fleet_at_work()
    for at_s in range(8):
        scrape(fleet, A, 100.0, float(at_s))
        scrape(fleet, B, 100.0 + at_s, float(at_s))

    assert states(fleet, 7.5) == [HealthState.EJECTED, HealthState.HEALTHY]


@pytest.mark.parametrize(("tokens", "running"), [(lambda t: 5.0 * t, 1.0), (lambda _: 9.0, 0.0)])
def test_one_that_generates_or_runs_nothing_is_not_still(tokens, running):
    fleet = a_fleet_at_work()
    for at_s in range(20):
        scrape(fleet, A, tokens(at_s), float(at_s), running)
        scrape(fleet, B, 100.0 + at_s, float(at_s))

    assert states(fleet, 19.5) == [HealthState.HEALTHY] * 2


def test_what_hangs_does_not_keep_an_engine_from_being_tried_anew():
    fleet = a_fleet_at_work()
    fleet.stalls.progressed("b", 7.0)
    assert states(fleet, 7.0)[0] is HealthState.EJECTED

    assert A in {e.address for e in fleet.snapshot(10.0).endpoints}
    dispatch(fleet, "trial", A, a_request(a_prompt(100)), 10.0)
    assert A not in {e.address for e in fleet.snapshot(10.1).endpoints}


def test_a_client_that_leaves_a_silent_answer_is_enough_on_probation():
    fleet = a_fleet_at_work()
    fleet.stalls.progressed("b", 7.0)
    states(fleet, 7.0)
    dispatch(fleet, "trial", A, a_request(a_prompt(100)), 10.0)
    fleet.first_token("trial", 10.1, watched=True)
    fleet.release("trial", 12.0, prompt_computed=True, whole=False)

    assert fleet.health.state(A, 12.0) is HealthState.EJECTED


def test_one_answer_of_an_endpoint_without_a_counter_is_watched_at_a_time():
    stalls = StallDetector()
    assert stalls.wants_a_witness(A)
    stalls.first_token(A, 0.0)
    stalls.watch("d", A, 0.0)
    assert not stalls.wants_a_witness(A)
    stalls.released("d", A, 1.0, whole=True)
    assert stalls.wants_a_witness(A)
    stalls.scraped(A, EndpointMetrics(running_requests=1.0, generation_tokens=5.0), 1.0)
    assert not stalls.wants_a_witness(A)
