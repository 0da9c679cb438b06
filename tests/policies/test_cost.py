from dataclasses import replace

import numpy as np
import pytest

from builders import live_settings, meet, send
from learning_worlds import LinearWorld, a_snapshot, see, with_columns, worked_decision
from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.fleet.demand import Demand, DemandSnapshot
from lodestar_extproc.fleet.lost_prefixes import NOTHING_MISSED
from lodestar_extproc.learning.engine_predictor import EnginePredictor
from lodestar_extproc.learning.predictor import Estimate
from lodestar_extproc.policies.cost import (
    MAX_SPARED_S,
    MAX_UTILISATION,
    Externality,
    GreedyTTFT,
    arrival_rate,
    busy_ratio,
    utilisation,
)

ENDPOINTS = tuple(Endpoint(f"10.0.0.{i}:80") for i in range(2))


def candidates(at_s=0.0, endpoints=ENDPOINTS, **columns):
    return see(a_snapshot(endpoints, at_s=at_s, **columns), 1000.0)


def an_externality(weight=2.0, **changes):
    return Externality(live_settings(externality_weight=weight, **changes))


def queue_alone(weight=2.0):
    """Without the prices of slower tokens, of evictions and of memory."""
    return an_externality(weight, decode_weight=0.0, eviction_weight=0.0, memory_weight_s=0.0)


def an_estimate(**changes):
    values = {"ttft_s": [0.5, 0.5], "service_s": [0.1, 0.1], "backlog_s": [0.2, 0.2]}
    values |= {"s_per_ktoken": [0.1, 0.1]} | changes
    return Estimate(**{name: np.array(v, float) for name, v in values.items()})


def steady(rate, seconds, service_s=(0.0, 0.0)):
    """The demand of evenly spaced arrivals, sent in turn to each endpoint."""
    demand = Demand(ENDPOINTS)
    for i in range(int(rate * seconds)):
        send(demand, candidates(i / rate), i % 2, service_s[i % 2])
    return demand


def test_greedy_is_the_predicted_ttft():
    assert GreedyTTFT().score(an_estimate(), candidates()).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("weight", "cost"), [(1.0, [0.237072, 0.310991]), (2.0, [0.296795, 0.404041])]
)
def test_cost_of_the_worked_decision(weight, cost):
    # 6 arrivals a second, and .55 and .40 seconds of service a second.
    demand = DemandSnapshot(6.0, np.array([0.55, 0.40]), np.zeros(2), np.zeros(2), NOTHING_MISSED)
    decision = replace(worked_decision(), demand=demand)
    estimate = EnginePredictor().predict(decision.features, decision.snapshot.endpoints)

    assert arrival_rate(demand, estimate) == pytest.approx([3.014417, 2.985583], abs=5e-7)
    assert utilisation(demand) == pytest.approx([0.5125, 0.4375], abs=5e-7)
    assert queue_alone(weight).score(estimate, decision) == pytest.approx(cost, abs=1.5e-6)


def demand_of(arrivals_per_s=0.0, service_ratio=(0.0, 0.0), again=(0.0, 0.0), memory=(0.0, 0.0)):
    columns = (np.array(each) for each in (service_ratio, again, memory))
    return DemandSnapshot(arrivals_per_s, *columns, NOTHING_MISSED)


def test_a_faster_endpoint_gets_its_share_of_the_arrivals():
    rate = arrival_rate(demand_of(8.0), an_estimate(s_per_ktoken=[0.05, 0.15]))

    assert rate == pytest.approx([6.0, 2.0])


@pytest.mark.parametrize("rate", [0.0, 8.0])
def test_where_no_endpoint_has_any_speed_there_is_no_share_and_no_error(rate):
    with np.errstate(all="ignore"):
        shares = arrival_rate(demand_of(rate), an_estimate(s_per_ktoken=[np.inf, np.inf]))
    assert np.isnan(shares).all()


def test_utilisation_is_half_the_endpoints_own_and_half_the_fleets():
    assert utilisation(demand_of(service_ratio=(0.2, 0.6))) == pytest.approx([0.3, 0.5])


def test_utilisation_never_reaches_one():
    demand = demand_of(10.0, (25.0, 25.0))

    assert utilisation(demand).tolist() == [MAX_UTILISATION] * 2
    cost = an_externality().score(an_estimate(), replace(candidates(), demand=demand))
    assert np.isfinite(cost).all()


def test_work_before_a_backlog_costs_more_than_the_same_work_without():
    seen = meet(steady(8.0, 60, service_s=(0.1, 0.1)), candidates(60.0))
    cost = an_externality().score(an_estimate(backlog_s=[0.0, 1.0]), seen)

    assert 0.5 < cost[0] < cost[1]


def test_beyond_its_limit_a_backlog_costs_no_more():
    seen = meet(steady(8.0, 60, service_s=(0.1, 0.1)), candidates(60.0))
    estimate = an_estimate(backlog_s=[0.4, 1.0])
    costs = [an_externality(backlog_limit_s=limit).score(estimate, seen) for limit in (None, 0.5)]

    assert costs[0][0] == costs[1][0]
    assert costs[0][0] < costs[1][1] < costs[0][1]


def test_weight_zero_is_greedy():
    seen = meet(steady(8.0, 60, service_s=(0.1, 0.1)), candidates(60.0))

    assert queue_alone(0.0).score(an_estimate(), seen).tolist() == [0.5, 0.5]


def test_where_nobody_counts_demand_the_queue_has_no_price():
    assert queue_alone().score(an_estimate(), candidates()).tolist() == [0.5, 0.5]


def test_slowing_those_that_generate_has_its_price():
    seen = candidates()
    crowded = replace(seen, snapshot=with_columns(seen.snapshot, decode_requests=[20.0, 0.0]))
    function = an_externality(0.0, decode_weight=0.1, eviction_weight=0.0, memory_weight_s=0.0)
    cost = function.score(an_estimate(service_s=[0.3, 0.3]), crowded)

    assert cost - 0.5 == pytest.approx([0.1 * 20 * 0.3, 0.0])


def test_an_idle_fleet_prefers_the_lower_ttft():
    seen = LinearWorld(("fast", "slow")).candidates()
    seen = meet(Demand(seen.snapshot.endpoints), seen)
    cost = an_externality().score(an_estimate(ttft_s=[0.1, 0.9]), seen)

    assert cost[0] < cost[1]


def test_memory_has_a_price_that_rises_as_it_fills():
    function = an_externality(0.0, decode_weight=0.0, eviction_weight=0.0, memory_weight_s=0.5)
    held = np.array([8_000.0, 3_000.0])
    seen = candidates(kv_capacity_tokens=10_000.0, decode_context_tokens=held)
    cost = function.score(an_estimate(), seen)

    # A tenth of the memory each; 0.9 and 0.4 of it in use with it.
    assert cost - 0.5 == pytest.approx([0.5 * 0.1 * 0.9 / 0.1, 0.5 * 0.1 * 0.4 / 0.6])


def test_prompts_that_share_their_beginning_pay_for_its_memory_once():
    seen = candidates(
        kv_capacity_tokens=10_000.0,
        decode_context_tokens=np.array([9_000.0, 9_000.0]),
        prefill_uncached_tokens=np.array([500.0, 500.0]),
        # The first engine holds 2,000 tokens for them; the second has not reported for long.
        kv_usage_ratio=np.array([0.2, np.nan]),
    )

    assert seen.snapshot.memory_used_ratio == pytest.approx([0.25, 0.9])


def test_a_report_from_before_the_last_prompts_does_not_make_memory_look_full():
    seen = candidates(
        kv_capacity_tokens=10_000.0,
        decode_context_tokens=np.array([1_000.0, 1_000.0]),
        kv_usage_ratio=np.array([0.8, 0.1]),
    )

    assert seen.snapshot.memory_used_ratio == pytest.approx([0.1, 0.1])


def test_memory_that_nobody_knows_of_and_memory_overfull_cost_something_finite():
    function = an_externality(0.0, decode_weight=0.0, eviction_weight=0.0, memory_weight_s=0.5)
    seen = candidates(
        kv_capacity_tokens=np.array([np.nan, 2_000.0]),
        decode_context_tokens=np.array([1e9, 1e9]),
    )
    cost = function.score(an_estimate(), seen)

    assert cost[0] == 0.5
    assert 0.5 < cost[1] < 100.0


def test_what_the_cache_loses_has_its_price():
    function = an_externality(0.0, decode_weight=0.0, eviction_weight=2.0, memory_weight_s=0.0)
    seen = replace(candidates(), demand=demand_of(again=(0.5, 0.0)))
    cost = function.score(an_estimate(), seen)

    assert cost - 0.5 == pytest.approx([2.0 * 0.5 * 0.1, 0.0])


@pytest.mark.parametrize(
    ("depth", "again", "counted"),
    [
        (1.0, 0.5, 0.5),
        (1.0, 1.0, 1.0),
        (20.0, 0.0, 0.0),
        (20.0, 0.5, 1.0),  # a half, a quarter, an eighth ...
        (20.0, 0.9, 9.0),
        (20.0, 1.0, 20.0),
        (4.0, 0.9, 3.6),
    ],
)
def test_what_is_computed_again_displaces_others_to_a_depth_where_caches_are_outgrown(
    depth, again, counted
):
    function = an_externality(0.0, decode_weight=0.0, memory_weight_s=0.0, eviction_depth=depth)
    demand = demand_of(again=(again, 0.0))
    outgrown, fitting = (
        function.score(an_estimate(), replace(candidates(), demand=each)) - 0.5
        for each in (demand._replace(outgrown=True), demand)
    )

    assert outgrown == pytest.approx([counted * 0.1, 0.0])
    assert fitting == pytest.approx([again * 0.1, 0.0])


def test_nobody_is_sent_to_wait_for_more_than_so_long_that_a_cache_be_spared():
    function = an_externality(0.0, decode_weight=0.0, memory_weight_s=0.0, eviction_depth=1e6)
    demand = demand_of(again=(1.0, 0.5))._replace(outgrown=True)
    cost = function.score(an_estimate(), replace(candidates(), demand=demand))

    least_s = 0.1 * (0.5 / 0.5 - 0.5)
    assert cost - 0.5 == pytest.approx([0.1 + least_s + MAX_SPARED_S, 0.05 + least_s])


def test_what_is_computed_again_costs_others_as_much_as_what_is_computed_now():
    seen = candidates(decode_requests=4.0)
    again = replace(seen, demand=demand_of(again=(0.5, 0.5)))
    function = an_externality(0.0, decode_weight=0.5, memory_weight_s=0.0)
    alone, twice = (function.score(an_estimate(), each) - 0.5 for each in (seen, again))

    assert alone == pytest.approx([0.2, 0.2])
    assert twice == pytest.approx(alone + 0.5 * (0.1 + alone))


def test_the_scarcer_of_computing_time_and_memory_says_how_busy_an_endpoint_is():
    demand = demand_of(service_ratio=(0.2, 0.6), memory=(0.7, 0.1))

    assert busy_ratio(demand) == pytest.approx([0.7, 0.5])
    assert busy_ratio(demand_of(memory=(5.0, 0.0))).tolist() == [MAX_UTILISATION, 0.0]


def test_where_memory_is_full_work_costs_others_more():
    full, empty = (
        replace(candidates(), demand=demand_of(8.0, memory=(used, 0.1))) for used in (0.9, 0.1)
    )
    costs = [queue_alone().score(an_estimate(), seen) for seen in (full, empty)]

    assert costs[0][0] > costs[0][1] == pytest.approx(costs[1][1])
