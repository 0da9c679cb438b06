from dataclasses import replace

import numpy as np
import pytest

from builders import live_settings, meet
from learning_worlds import a_snapshot, see
from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.fleet.demand import Demand, DemandSnapshot
from lodestar_extproc.fleet.lost_prefixes import NOTHING_MISSED
from lodestar_extproc.learning.predictor import Estimate
from lodestar_extproc.policies.cost import Externality
from lodestar_extproc.policies.end_to_end import EndToEnd

FAST, SLOW, OTHER_SLOW = (
    Endpoint(f"10.0.0.{i}:80", kind) for i, kind in enumerate(("fast", "slow", "slow"))
)
GENERATION_S = {"fast": 2.0, "slow": 3.0}


def free():
    """Others cost nothing."""
    return Externality(
        live_settings(
            externality_weight=0.0, decode_weight=0.0, eviction_weight=0.0, memory_weight_s=0.0
        )
    )


def generation_s(endpoints):
    return np.array([GENERATION_S[e.accelerator] for e in endpoints])


def a_cost_function(externality=None, weight=1.0):
    return EndToEnd(externality or free(), generation_s, live_settings(generation_weight=weight))


def candidates(*endpoints, at_s=0.0, **columns):
    return see(a_snapshot(endpoints, at_s=at_s, **columns), 1000.0)


def an_estimate(n, **changes):
    values = {"ttft_s": [0.5] * n, "service_s": [0.1] * n, "backlog_s": [0.2] * n}
    values |= {"s_per_ktoken": [0.1] * n} | changes
    return Estimate(**{name: np.array(v, float) for name, v in values.items()})


def score(function, seen, **changes):
    seen = meet(Demand(seen.snapshot.endpoints), seen)
    return function.score(an_estimate(len(seen), **changes), seen)


def test_of_engines_that_are_idle_the_one_that_generates_faster_is_better():
    cost = score(a_cost_function(), candidates(FAST, SLOW))

    assert cost == pytest.approx([0.5 + 2.0, 0.5 + 3.0])


def test_every_request_that_generates_there_ends_later_by_the_prefill():
    seen = candidates(SLOW, OTHER_SLOW, decode_requests=[20.0, 0.0])
    cost = score(a_cost_function(), seen, service_s=[0.3, 0.3])

    assert cost == pytest.approx([0.5 + 3.0 + 20 * 0.3, 0.5 + 3.0])


def test_the_weight_is_that_of_all_that_comes_after_the_first_token():
    seen = candidates(SLOW, OTHER_SLOW, decode_requests=[20.0, 0.0])
    cost = score(a_cost_function(weight=0.5), seen, service_s=[0.3, 0.3])

    assert cost == pytest.approx([0.5 + 0.5 * (3.0 + 6.0), 0.5 + 0.5 * 3.0])


def test_an_engine_given_more_prefills_than_its_kind_generates_slower():
    # 0.6 and 0.2 seconds of prefill a second.
    demand = DemandSnapshot(20.0, np.array([0.6, 0.2]), np.zeros(2), np.zeros(2), NOTHING_MISSED)
    seen = replace(candidates(SLOW, OTHER_SLOW), demand=demand)
    taken_s = a_cost_function().generation_s(seen)

    # Half its own share and half the fleet's: 0.5 and 0.7 of the time are free, on average 0.6.
    assert taken_s == pytest.approx([3.0 * 0.6 / 0.5, 3.0 * 0.6 / 0.7])


def test_a_kind_is_compared_with_itself():
    demand = DemandSnapshot(10.0, np.array([0.6, 0.0]), np.zeros(2), np.zeros(2), NOTHING_MISSED)
    seen = replace(candidates(FAST, SLOW), demand=demand)

    # What is learned of a kind already contains how busy it is.
    assert a_cost_function().generation_s(seen) == pytest.approx([2.0, 3.0])


def test_own_ttft_and_the_cost_to_others_stay():
    seen = candidates(SLOW, OTHER_SLOW)
    plain = Externality(live_settings(), prices_slower_tokens=False)
    cost = score(
        a_cost_function(Externality(live_settings(decode_weight=0.0))), seen, backlog_s=[0.0, 1.0]
    )

    assert cost - 3.0 == pytest.approx(score(plain, seen, backlog_s=[0.0, 1.0]))


def test_before_any_answer_has_ended_only_the_rest_counts():
    function = EndToEnd(free(), lambda endpoints: np.zeros(len(endpoints)), live_settings())
    seen = candidates(FAST, SLOW)

    assert score(function, seen).tolist() == [0.5, 0.5]
