import numpy as np
import pytest

from learning_worlds import a_snapshot, see
from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.learning.models import Estimate
from lodestar_extproc.policies.end_to_end import EndToEnd
from lodestar_extproc.policies.objective import Externality

FAST, SLOW, OTHER_SLOW = (
    Endpoint(f"10.0.0.{i}:80", kind) for i, kind in enumerate(("fast", "slow", "slow"))
)
GENERATION_S = {"fast": 2.0, "slow": 3.0}


def free():
    """Others cost nothing."""
    return Externality(0.0, decode_weight=0.0, eviction_weight=0.0, memory_weight_s=0.0)


def generation_s(endpoints):
    return np.array([GENERATION_S[e.accelerator] for e in endpoints])


def an_objective(externality=None, weight=1.0):
    return EndToEnd(externality or free(), generation_s, weight)


def candidates(*endpoints, at_s=0.0, **columns):
    return see(a_snapshot(endpoints, at_s=at_s, **columns), 1000.0)


def an_estimate(n, **changes):
    values = {"ttft_s": [0.5] * n, "service_s": [0.1] * n, "backlog_s": [0.2] * n}
    values |= {"s_per_ktoken": [0.1] * n} | changes
    return Estimate(**{name: np.array(v, float) for name, v in values.items()})


def score(objective, seen, **changes):
    objective.arrived(seen)
    return objective.score(an_estimate(len(seen), **changes), seen)


def test_of_engines_that_are_idle_the_one_that_generates_faster_is_better():
    cost = score(an_objective(), candidates(FAST, SLOW))

    assert cost == pytest.approx([0.5 + 2.0, 0.5 + 3.0])


def test_every_request_that_generates_there_ends_later_by_the_prefill():
    seen = candidates(SLOW, OTHER_SLOW, decode_requests=[20.0, 0.0])
    cost = score(an_objective(), seen, service_s=[0.3, 0.3])

    assert cost == pytest.approx([0.5 + 3.0 + 20 * 0.3, 0.5 + 3.0])


def test_the_weight_is_that_of_all_that_comes_after_the_first_token():
    seen = candidates(SLOW, OTHER_SLOW, decode_requests=[20.0, 0.0])
    cost = score(an_objective(weight=0.5), seen, service_s=[0.3, 0.3])

    assert cost == pytest.approx([0.5 + 0.5 * (3.0 + 6.0), 0.5 + 0.5 * 3.0])


def test_an_engine_given_more_prefills_than_its_kind_generates_slower():
    objective = an_objective()
    for i in range(3000):  # 0.6 and 0.2 seconds of prefill a second
        seen = candidates(SLOW, OTHER_SLOW, at_s=i / 10)
        objective.arrived(seen)
        objective.routed(seen, 0, 0.06)
        objective.routed(seen, 1, 0.02)
    taken_s = objective.generation_s(seen)

    # Half its own share and half the fleet's: 0.5 and 0.7 of the time are free, on average 0.6.
    assert taken_s == pytest.approx([3.0 * 0.6 / 0.5, 3.0 * 0.6 / 0.7], rel=0.05)


def test_a_kind_is_compared_with_itself():
    objective = an_objective()
    for i in range(3000):
        seen = candidates(FAST, SLOW, at_s=i / 10)
        objective.arrived(seen)
        objective.routed(seen, 0, 0.06)

    # What is learned of a kind already contains how busy it is.
    assert objective.generation_s(seen) == pytest.approx([2.0, 3.0])


def test_own_ttft_and_the_cost_to_others_stay():
    seen = candidates(SLOW, OTHER_SLOW)
    plain = Externality(decode_weight=0.0)
    cost = score(an_objective(Externality(decode_weight=0.0)), seen, backlog_s=[0.0, 1.0])

    assert cost - 3.0 == pytest.approx(score(plain, seen, backlog_s=[0.0, 1.0]))


def test_before_any_answer_has_ended_only_the_rest_counts():
    objective = EndToEnd(free(), lambda endpoints: np.zeros(len(endpoints)))
    seen = candidates(FAST, SLOW)

    assert score(objective, seen).tolist() == [0.5, 0.5]
