from dataclasses import replace

import numpy as np
import pytest

from builders import a_request, meet, send
from learning_worlds import a_snapshot, see
from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.fleet.demand import MEMORY_S, Demand

ENDPOINTS = tuple(Endpoint(f"10.0.0.{i}:80") for i in range(2))


def candidates(at_s=0.0, endpoints=ENDPOINTS):
    return see(a_snapshot(endpoints, at_s=at_s), 1000.0)


def met(demand, at_s=0.0, endpoints=ENDPOINTS):
    return meet(demand, candidates(at_s, endpoints)).demand


def steady(rate, seconds, service_s=(0.0, 0.0)):
    """Evenly spaced arrivals, sent in turn to each endpoint."""
    demand = Demand(ENDPOINTS)
    for i in range(int(rate * seconds)):
        send(demand, candidates(i / rate), i % 2, service_s[i % 2])
    return demand


@pytest.mark.parametrize("seconds", [5, 30, 300])
def test_arrivals_are_right_from_the_first_seconds_on(seconds):
    assert met(steady(8.0, seconds), seconds).arrivals_per_s == pytest.approx(8.0, rel=0.05)


def test_service_is_counted_where_it_went():
    service = met(steady(4.0, 300, service_s=(0.1, 0.3)), 300.0).service_ratio

    assert service == pytest.approx([0.2, 0.6], rel=0.05)


def test_a_pause_empties_the_counts():
    demand = met(steady(8.0, 60, service_s=(0.1, 0.1)), 60.0 + 3600.0)

    assert demand.service_ratio.max() < 1e-6
    # The request that asks is one.
    assert demand.arrivals_per_s == pytest.approx(1 / MEMORY_S)


def test_to_ask_counts_nothing():
    demand = steady(8.0, 60, service_s=(0.1, 0.1))
    first = met(demand, 60.0)
    for at_s in (1e6, 0.0):
        met(demand, at_s)
    again = met(demand, 60.0)

    assert again.arrivals_per_s == first.arrivals_per_s
    assert (again.service_ratio == first.service_ratio).all()


def test_a_clock_that_steps_back_does_no_harm():
    demand = Demand(ENDPOINTS)
    send(demand, candidates(100.0), 0, 1.0)
    send(demand, candidates(50.0), 0, 1.0)
    found = met(demand, 50.0)

    assert 0 < found.arrivals_per_s < np.inf
    assert 0 < found.service_ratio[0] < np.inf


@pytest.mark.parametrize("service_s", [np.nan, np.inf, -1.0])
def test_a_service_that_is_no_time_adds_nothing(service_s):
    demand = Demand(ENDPOINTS)
    send(demand, candidates(), 0, service_s)

    assert met(demand).service_ratio.tolist() == [0.0, 0.0]


def test_a_request_that_may_go_to_few_leaves_what_the_others_were_sent():
    demand = steady(4.0, 60, service_s=(0.1, 0.3))
    before = met(demand, 60.0).service_ratio
    send(demand, candidates(60.0, ENDPOINTS[:1]), 0)

    assert met(demand, 60.0).service_ratio == pytest.approx(before)
    assert met(demand, 60.0, ENDPOINTS[1:]).service_ratio == pytest.approx(before[1:])


def test_endpoints_come_and_go_without_a_trace():
    demand = Demand()
    for i in range(100):
        fleet = tuple(Endpoint(f"10.0.{i}.{k}:80") for k in range(2))
        demand.adopt(fleet)
        send(demand, candidates(float(i), fleet), 0, 1.0)

    assert met(demand, 100.0, fleet).service_ratio[0] > 0
    assert len(demand._service) == len(demand._column) == 2
    assert len(demand._lost._ghosts) <= 2


def test_who_stays_keeps_what_it_was_sent():
    demand = steady(4.0, 60, service_s=(0.1, 0.3))
    before = met(demand, 60.0).service_ratio
    new = Endpoint("10.0.0.9:80")
    demand.adopt((new, *reversed(ENDPOINTS)))

    after = met(demand, 60.0, (new, *ENDPOINTS)).service_ratio
    assert after.tolist() == [0.0, *before]


def test_a_body_that_could_not_be_read_takes_its_length_of_a_cache():
    seen = see(a_snapshot(ENDPOINTS, kv_capacity_tokens=1e4), 1000.0)
    demand = Demand(ENDPOINTS)
    send(demand, seen, 0)  # its capacity is known from now on
    placed = demand._lost.placed_tokens(ENDPOINTS[0].address)
    unread = a_request(b"", block_hashes=(), prompt_tokens=500.0)
    send(demand, replace(seen, request=unread), 0)

    assert demand._lost.placed_tokens(ENDPOINTS[0].address) > placed
