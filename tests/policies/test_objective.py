from dataclasses import replace

import numpy as np
import pytest

from learning_worlds import LinearWorld, a_snapshot, see, with_columns, worked_decision
from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.learning.engine_model import EngineModel
from lodestar_extproc.learning.models import Estimate
from lodestar_extproc.policies.objective import (
    MAX_UTILISATION,
    Externality,
    GreedyTTFT,
    memory_used,
)

ENDPOINTS = tuple(Endpoint(f"10.0.0.{i}:80") for i in range(2))


def candidates(at_s=0.0, endpoints=ENDPOINTS, **columns):
    return see(a_snapshot(endpoints, at_s=at_s, **columns), 1000.0)


def queue_alone(weight=2.0):
    """Without the prices of slower tokens, of evictions and of memory."""
    return Externality(weight, decode_weight=0.0, eviction_weight=0.0, memory_weight_s=0.0)


def an_estimate(**changes):
    values = {"ttft_s": [0.5, 0.5], "service_s": [0.1, 0.1], "backlog_s": [0.2, 0.2]}
    values |= {"s_per_ktoken": [0.1, 0.1]} | changes
    return Estimate(**{name: np.array(v, float) for name, v in values.items()})


def steady(objective, rate, seconds, service_s=(0.0, 0.0)):
    """Evenly spaced arrivals, in turn to each endpoint."""
    for i in range(int(rate * seconds)):
        seen = candidates(i / rate)
        objective.arrived(seen)
        objective.routed(seen, i % 2, service_s[i % 2])


def test_greedy_is_the_predicted_ttft():
    assert GreedyTTFT().score(an_estimate(), candidates()).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("weight", "cost"), [(1.0, [0.237072, 0.310991]), (2.0, [0.296795, 0.404041])]
)
def test_cost_of_the_worked_decision(weight, cost):
    decision = worked_decision()
    endpoints = decision.snapshot.endpoints
    estimate = EngineModel().predict(decision.features, endpoints)
    objective = queue_alone(weight)
    # 6 arrivals a second, and .55 and .40 seconds of service a second, long after the start.
    objective._started_at_s, objective._at_s, objective._arrivals = -1e9, 100.0, 6.0
    for chosen, busy in enumerate((0.55, 0.40)):
        objective.routed(decision, chosen, busy * 30.0)

    assert objective.arrival_rate(estimate) == pytest.approx([3.014417, 2.985583], abs=5e-7)
    assert objective.utilisation(decision) == pytest.approx([0.5125, 0.4375], abs=5e-7)
    assert objective.score(estimate, decision) == pytest.approx(cost, abs=1.5e-6)


@pytest.mark.parametrize("seconds", [5, 30, 300])
def test_arrival_rate_is_right_from_the_first_seconds_on(seconds):
    objective = Externality()
    steady(objective, 8.0, seconds)

    assert objective.arrival_rate(an_estimate()).sum() == pytest.approx(8.0, rel=0.05)


def test_a_faster_endpoint_gets_its_share_of_the_arrivals():
    objective = Externality()
    steady(objective, 8.0, 300)
    rate = objective.arrival_rate(an_estimate(s_per_ktoken=[0.05, 0.15]))

    assert rate[0] == pytest.approx(3 * rate[1])


def test_utilisation_is_half_the_endpoints_own_and_half_the_fleets():
    objective = Externality()
    steady(objective, 4.0, 300, service_s=(0.1, 0.3))  # 0.2 and 0.6 seconds a second

    assert objective.utilisation(candidates()) == pytest.approx([0.3, 0.5], rel=0.05)


def test_utilisation_never_reaches_one():
    objective = Externality()
    steady(objective, 10.0, 100, service_s=(5.0, 5.0))

    assert objective.utilisation(candidates()).tolist() == [MAX_UTILISATION] * 2
    assert np.isfinite(objective.score(an_estimate(), candidates())).all()


def test_work_before_a_backlog_costs_more_than_the_same_work_without():
    objective = Externality()
    steady(objective, 8.0, 60, service_s=(0.1, 0.1))
    cost = objective.score(an_estimate(backlog_s=[0.0, 1.0]), candidates())

    assert 0.5 < cost[0] < cost[1]


def test_beyond_its_limit_a_backlog_costs_no_more():
    costs = []
    for limit_s in (None, 0.5):
        objective = Externality(backlog_limit_s=limit_s)
        steady(objective, 8.0, 60, service_s=(0.1, 0.1))
        costs.append(objective.score(an_estimate(backlog_s=[0.4, 1.0]), candidates(60.0)))

    assert costs[0][0] == costs[1][0]
    assert costs[0][0] < costs[1][1] < costs[0][1]


def test_weight_zero_is_greedy():
    objective = queue_alone(0.0)
    steady(objective, 8.0, 60, service_s=(0.1, 0.1))

    assert objective.score(an_estimate(), candidates()).tolist() == [0.5, 0.5]


def test_slowing_those_that_generate_has_its_price():
    seen = candidates()
    crowded = replace(seen, snapshot=with_columns(seen.snapshot, decode_requests=[20.0, 0.0]))
    objective = Externality(0.0, decode_weight=0.1, eviction_weight=0.0, memory_weight_s=0.0)
    cost = objective.score(an_estimate(service_s=[0.3, 0.3]), crowded)

    assert cost - 0.5 == pytest.approx([0.1 * 20 * 0.3, 0.0])


def test_a_pause_empties_the_counts():
    objective = Externality()
    steady(objective, 8.0, 60, service_s=(0.1, 0.1))
    objective.arrived(candidates(60.0 + 3600.0))

    assert objective.utilisation(candidates()).max() < 1e-6
    assert objective.arrival_rate(an_estimate()).sum() == pytest.approx(1 / 30)


def test_a_clock_that_steps_back_does_no_harm():
    objective = Externality()
    objective.arrived(candidates(100.0))
    objective.arrived(candidates(50.0))

    assert objective.arrival_rate(an_estimate()).sum() > 0


def test_endpoints_come_and_go_without_a_trace():
    objective = Externality()
    for i in range(100):
        fleet = tuple(Endpoint(f"10.0.{i}.{k}:80") for k in range(2))
        seen = candidates(float(i), fleet)
        objective.arrived(seen)
        objective.score(an_estimate(), seen)
        objective.routed(seen, 0, 1.0)

    assert objective.utilisation(candidates(100.0, fleet)).max() > 0
    assert len(objective._service._values) < 10


def test_an_idle_fleet_prefers_the_lower_ttft():
    world, objective = LinearWorld(("fast", "slow")), Externality()
    seen = world.candidates()
    objective.arrived(seen)
    cost = objective.score(an_estimate(ttft_s=[0.1, 0.9]), seen)

    assert cost[0] < cost[1]


def test_memory_has_a_price_that_rises_as_it_fills():
    objective = Externality(0.0, decode_weight=0.0, eviction_weight=0.0, memory_weight_s=0.5)
    held = np.array([8_000.0, 3_000.0])
    seen = candidates(kv_capacity_tokens=10_000.0, decode_context_tokens=held)
    cost = objective.score(an_estimate(), seen)

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

    assert memory_used(seen.snapshot) == pytest.approx([0.25, 0.9])


def test_a_report_from_before_the_last_prompts_does_not_make_memory_look_full():
    seen = candidates(
        kv_capacity_tokens=10_000.0,
        decode_context_tokens=np.array([1_000.0, 1_000.0]),
        kv_usage_ratio=np.array([0.8, 0.1]),
    )

    assert memory_used(seen.snapshot) == pytest.approx([0.1, 0.1])


def test_memory_that_nobody_knows_of_and_memory_overfull_cost_something_finite():
    objective = Externality(0.0, decode_weight=0.0, eviction_weight=0.0, memory_weight_s=0.5)
    seen = candidates(
        kv_capacity_tokens=np.array([np.nan, 2_000.0]),
        decode_context_tokens=np.array([1e9, 1e9]),
    )
    cost = objective.score(an_estimate(), seen)

    assert cost[0] == 0.5
    assert 0.5 < cost[1] < 100.0


def test_what_the_cache_loses_has_its_price():
    objective = Externality(0.0, decode_weight=0.0, eviction_weight=2.0, memory_weight_s=0.0)
    objective._cache_price.shares = lambda _: np.array([0.5, 0.0])
    cost = objective.score(an_estimate(), candidates())

    assert cost - 0.5 == pytest.approx([2.0 * 0.5 * 0.1, 0.0])


def test_what_is_computed_again_costs_others_as_much_as_what_is_computed_now():
    now, again = (
        Externality(0.0, decode_weight=0.5, eviction_weight=e, memory_weight_s=0.0)
        for e in (0.0, 1.0)
    )
    again._cache_price.shares = lambda _: np.array([0.5, 0.5])
    seen = candidates(decode_requests=4.0)
    alone, twice = (o.score(an_estimate(), seen) - 0.5 for o in (now, again))

    assert alone == pytest.approx([0.2, 0.2])
    assert twice == pytest.approx(alone + 0.5 * (0.1 + alone))


def watched(objective, seconds, **columns):
    """Ten decisions a second, of which each sees the same."""
    for i in range(10 * seconds):
        objective.arrived(candidates(i / 10, kv_capacity_tokens=10_000.0, **columns))
    return candidates(seconds, kv_capacity_tokens=10_000.0, **columns)


def test_the_scarcer_of_computing_time_and_memory_says_how_busy_an_endpoint_is():
    objective = Externality()
    steady(objective, 4.0, 300, service_s=(0.1, 0.3))
    in_use = {"kv_usage_ratio": [0.7, 0.1], "decode_context_tokens": [7_000.0, 1_000.0]}
    for i in range(1200):
        objective.arrived(candidates(300 + i / 20, kv_capacity_tokens=10_000.0, **in_use))
        objective.routed(candidates(300 + i / 20), i % 2, 0.01 + 0.02 * (i % 2))
    busy = objective.busy_ratio(candidates(360.0))

    assert busy[0] == pytest.approx(0.7, rel=0.01)
    assert busy[1] == objective.utilisation(candidates(360.0))[1] > 0.1


def test_the_use_of_memory_is_a_mean_of_the_last_seconds():
    objective = Externality()
    watched(objective, 1, kv_usage_ratio=0.2, decode_context_tokens=2_000.0)
    seen = candidates(
        11.0, kv_capacity_tokens=10_000.0, kv_usage_ratio=0.8, decode_context_tokens=8_000.0
    )
    objective.arrived(seen)

    assert objective.busy_ratio(seen) == pytest.approx([0.8 - 0.6 * np.exp(-1.01)] * 2)


def test_where_memory_is_full_work_costs_others_more():
    costs = []
    for used in (0.1, 0.9):
        objective = queue_alone()
        of_one = {"decode_context_tokens": [1e4 * used, 1e3], "kv_usage_ratio": [used, 0.1]}
        seen = watched(objective, 60, **of_one)
        costs.append(objective.score(an_estimate(), seen))

    assert costs[1][0] > costs[1][1] == pytest.approx(costs[0][1])


def test_memory_that_nobody_knows_of_makes_no_endpoint_busy():
    objective = Externality()
    objective.arrived(candidates())

    assert objective.busy_ratio(candidates()).max() == 0.0
