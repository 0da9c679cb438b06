import random
from dataclasses import replace

import numpy as np
import pytest

from builders import live_settings, meet, send
from learning_worlds import LinearWorld, a_snapshot, see
from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.fleet.demand import Demand
from lodestar_extproc.learning.predictor import Estimate
from lodestar_extproc.policies.cost import Externality
from lodestar_extproc.policies.goodput import LATE_WEIGHT, OWN_WEIGHT, Goodput

ENDPOINTS = tuple(Endpoint(f"10.0.0.{i}:80") for i in range(2))
FREE = Externality(
    live_settings(
        externality_weight=0.0, decode_weight=0.0, eviction_weight=0.0, memory_weight_s=0.0
    )
)
"""Others cost nothing."""
USUAL = live_settings()


def a_goodput(externality, interval_s, ttft_slo_s=None):
    return Goodput(externality, interval_s, live_settings(ttft_slo_s=ttft_slo_s))


def an_externality(weight):
    return Externality(live_settings(externality_weight=weight))


def candidates(ttft_slo_s=None):
    seen = see(a_snapshot(ENDPOINTS), 1000.0)
    return replace(seen, request=seen.request._replace(ttft_slo_s=ttft_slo_s))


def an_estimate(*ttft_s, **changes):
    values = {"service_s": [0.1, 0.1], "backlog_s": [0.2, 0.2], "s_per_ktoken": [0.1, 0.1]}
    values |= {"ttft_s": ttft_s} | changes
    return Estimate(**{name: np.array(v, float) for name, v in values.items()})


def within(factor):
    """An interval from 1/factor to factor times the prediction."""
    return lambda ttft_s, _: (ttft_s / factor, ttft_s * factor)


def order(function, estimate, seen):
    seen = meet(Demand(ENDPOINTS), seen)
    return np.argsort(function.score(estimate, seen)).tolist()


def test_a_tenth_of_the_requests_come_after_the_upper_end_of_the_interval():
    late = a_goodput(FREE, within(2.0)).late_ratio(an_estimate(0.5, 2.0), ENDPOINTS, 1.0)

    assert late == pytest.approx([0.1, 0.9], abs=1e-3)


def test_what_is_certain_is_late_or_is_not():
    late = a_goodput(FREE, within(1.0)).late_ratio(an_estimate(0.98, 1.02), ENDPOINTS, 1.0)

    assert late == pytest.approx([0.0, 1.0])


def test_cost_of_a_worked_decision():
    cost = a_goodput(FREE, within(2.0), 1.0).score(an_estimate(0.5, 2.0), candidates())

    assert cost == pytest.approx(
        [LATE_WEIGHT * 0.1 + OWN_WEIGHT * 0.5, LATE_WEIGHT * 0.9 + OWN_WEIGHT * 2.0], abs=4e-3
    )


def test_a_request_that_meets_its_bound_anywhere_leaves_the_fast_endpoint_to_others():
    estimate = an_estimate(0.1, 0.6, backlog_s=[0.8, 0.0])
    steady = [a_goodput(an_externality(5.0), within(1.1), 2.0), an_externality(0.0)]

    assert [order(each, estimate, candidates()) for each in steady] == [[1, 0], [0, 1]]


def test_the_better_chance_of_being_in_time_decides():
    def sure_of_the_first(ttft_s, _):
        return ttft_s / [1.05, 3.0], ttft_s * [1.05, 3.0]

    estimate = an_estimate(0.8, 0.7)

    assert order(a_goodput(FREE, sure_of_the_first, 1.0), estimate, candidates()) == [0, 1]


def test_one_that_is_late_everywhere_goes_where_it_takes_the_least_from_others():
    estimate = an_estimate(5.0, 6.0, service_s=[1.0, 0.2], backlog_s=[4.0, 5.0])

    assert order(a_goodput(Externality(USUAL), within(1.2), 0.5), estimate, candidates()) == [1, 0]


def test_beyond_half_the_bound_a_backlog_costs_others_no_more():
    function = a_goodput(Externality(USUAL), within(1.2), 0.5)
    seen = meet(Demand(ENDPOINTS), candidates())
    short, limit, long = (
        function.score(an_estimate(9.0, 9.0, backlog_s=[v, v]), seen)[0] for v in (0.2, 0.25, 8.0)
    )

    assert short < limit == long


def test_a_requests_own_bound_goes_before_the_pools():
    function = a_goodput(FREE, within(1.0), 1.0)
    estimate = an_estimate(0.6, 2.0)
    own, pools = (function.score(estimate, candidates(slo)) for slo in (4.0, None))

    assert own == pytest.approx(OWN_WEIGHT * estimate.ttft_s)
    assert pools[1] - pools[0] > LATE_WEIGHT * 0.99


def test_without_a_bound_it_is_the_externality():
    world = LinearWorld(("fast", "slow"))
    one, other = a_goodput(Externality(USUAL), within(2.0)), Externality(USUAL)
    rng, demand = random.Random(1), Demand(world.endpoints)
    for _ in range(20):
        seen = meet(demand, world.candidates())
        estimate = an_estimate(rng.random() + 0.01, rng.random() + 0.01)
        assert one.score(estimate, seen).tolist() == other.score(estimate, seen).tolist()
        send(demand, seen, 0, 0.3)
