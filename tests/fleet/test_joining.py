"""Endpoints that join others: they serve once they are known to."""

import pytest

from builders import a_fleet, a_request, an_endpoint, dispatch, live_settings
from lodestar_extproc.endpoint import Level
from lodestar_extproc.fleet.fleet import Fleet
from lodestar_extproc.fleet.health_state import HealthState

PROBED = "http://10.0.0.9:8000/health"


def joined(fleet: Fleet, *newcomers) -> Fleet:
    fleet.set_endpoints([*fleet.endpoints, *newcomers])
    return fleet


def a_serving_fleet(n: int = 3) -> Fleet:
    fleet = a_fleet(n)
    for endpoint in fleet.endpoints:
        fleet.record_probe(endpoint.address, healthy=True, at_s=0.0)
    return fleet


def chosen(fleet: Fleet, at_s: float = 0.0) -> list[str]:
    return [endpoint.address for endpoint in fleet.snapshot(at_s).endpoints]


@pytest.mark.parametrize("n", [1, 300])
def test_those_that_join_get_nothing_until_a_probe_of_them_succeeds(n):
    fleet = a_serving_fleet()
    known, newcomers = chosen(fleet), [an_endpoint(i, health_url=PROBED) for i in range(10, 10 + n)]
    joined(fleet, *newcomers)
    assert chosen(fleet) == known
    states = {fleet.health.state(each.address, 0.0) for each in newcomers}
    assert states == {HealthState.JOINING}

    fleet.record_probe(newcomers[0].address, healthy=True, at_s=1.0)
    assert chosen(fleet) == [*known, newcomers[0].address]
    assert fleet.health.state(newcomers[0].address, 1.0) is HealthState.HEALTHY


def test_an_answer_shows_as_much_as_a_probe():
    fleet = joined(a_serving_fleet(1), an_endpoint(10, health_url=PROBED))
    newcomer = fleet.endpoints[1].address
    dispatch(fleet, "d", newcomer, a_request(), 0.0)
    fleet.first_token("d", 0.1)
    assert newcomer in chosen(fleet, 0.2)


def test_where_nobody_is_known_to_serve_all_may_from_the_beginning():
    fleet = joined(a_fleet(1), an_endpoint(10, health_url=PROBED))
    assert len(chosen(fleet)) == 2


def test_where_those_that_served_are_down_the_new_ones_are_asked():
    fleet = joined(a_serving_fleet(1), an_endpoint(10, health_url=PROBED))
    for _ in range(2):
        fleet.record_probe(fleet.endpoints[0].address, healthy=False, at_s=1.0)
    assert chosen(fleet, 1.0) == [fleet.endpoints[1].address]


def test_one_that_joins_and_fails_its_probes_is_down():
    fleet = joined(a_serving_fleet(1), an_endpoint(10, health_url=PROBED))
    newcomer = fleet.endpoints[1].address
    for _ in range(2):
        fleet.record_probe(newcomer, healthy=False, at_s=1.0)
    assert fleet.health.state(newcomer, 1.0) is HealthState.DOWN
    assert newcomer not in chosen(fleet, 1.0)


def test_of_those_that_nobody_probes_a_request_is_offered_one_and_each_has_its_turn():
    fleet = a_serving_fleet()
    known, newcomers = set(chosen(fleet)), [an_endpoint(i) for i in range(10, 15)]
    joined(fleet, *newcomers)
    offered = [set(chosen(fleet, at_s / 1000)) - known for at_s in range(1000, 1050)]
    assert {len(each) for each in offered} == {1}
    assert set.union(*offered) == {each.address for each in newcomers}


def test_one_that_nobody_probes_gets_one_request_at_a_time_until_it_answers():
    fleet = joined(a_serving_fleet(1), an_endpoint(10))
    newcomer = fleet.endpoints[1].address
    dispatch(fleet, "d", newcomer, a_request(), 0.0)
    assert newcomer not in chosen(fleet)

    fleet.first_token("d", 0.1)
    assert newcomer in chosen(fleet, 0.2)


def test_those_that_join_the_preferred_level_do_not_make_it_look_ill():
    endpoints = [an_endpoint(i, level=Level(priority=i == 3)) for i in (1, 2, 3)]
    fleet = Fleet(live_settings(), endpoints)
    for endpoint in endpoints:
        fleet.record_probe(endpoint.address, healthy=True, at_s=0.0)
    newcomers = [an_endpoint(i, health_url=PROBED) for i in range(10, 40)]
    joined(fleet, *newcomers)
    wanted = [endpoint.address for endpoint in endpoints[:2]]
    assert [endpoint.address for endpoint in fleet.snapshot(0.0, draw=0.99).endpoints] == wanted
