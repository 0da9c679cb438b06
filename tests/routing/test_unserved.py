from dataclasses import replace

import numpy as np
import pytest

from builders import a_fleet, a_request, a_router, candidates_of
from lodestar_extproc.decision import Ranking, Reason
from lodestar_extproc.policies.protocol import Stateless
from lodestar_extproc.routing.unserved import Overloaded, shed_if_late

CANDIDATES = candidates_of(a_fleet(2))


def ranking(*predicted_s: float, reason=Reason.MODEL) -> Ranking:
    order = tuple(range(len(predicted_s)))
    return Ranking(order, reason, np.array(predicted_s) if predicted_s else None)


@pytest.mark.parametrize(("best_s", "wait_s"), [(1.01, 1), (2.0, 1), (2.5, 2), (61.0, 60)])
def test_beyond_the_bound_everywhere_it_is_refused_with_a_time_to_wait(best_s, wait_s):
    with pytest.raises(Overloaded) as caught:
        shed_if_late(ranking(best_s + 1, best_s), CANDIDATES, 1.0)
    assert caught.value.retry_after_s == wait_s


@pytest.mark.parametrize(
    ("given", "slo_s"),
    [
        (ranking(2.0, 0.9), 1.0),
        (ranking(2.0), 2.0),
        (ranking(2.0), None),
        (ranking(), 1.0),
        (ranking(2.0, reason=Reason.UNTRUSTED), 1.0),
        (ranking(2.0, reason=Reason.BURN_IN), 1.0),
    ],
)
def test_a_bound_that_one_meets_or_a_prediction_not_believed_refuses_nobody(given, slo_s):
    shed_if_late(given, CANDIDATES, slo_s)


def slow_between_tokens(*tpot_s: float, slo_s: float):
    return replace(CANDIDATES, tpot_s=np.array(tpot_s), tpot_slo_s=slo_s)


def test_where_every_endpoint_is_too_slow_between_tokens_it_is_refused():
    with pytest.raises(Overloaded, match="TPOT") as caught:
        shed_if_late(ranking(), slow_between_tokens(0.09, 0.06, slo_s=0.05), None)
    assert caught.value.retry_after_s == 1


@pytest.mark.parametrize("best_s", [0.05, float("nan")])
def test_where_one_is_fast_enough_or_unknown_nobody_is_refused(best_s):
    shed_if_late(ranking(), slow_between_tokens(0.09, best_s, slo_s=0.05), None)


class Slow(Stateless):
    """Predicts ten seconds everywhere."""

    name = "slow"

    def rank(self, candidates, rng):
        return ranking(*[10.0] * len(candidates))


def test_what_is_refused_is_not_counted():
    router = a_router(2, ttft_slo_s=1.0)
    with pytest.raises(Overloaded):
        router.route(a_request(priority=-1), request_id="", at_s=0.0, policy=Slow())
    assert router.n_open == router.fleet.n_in_flight == 0
    router.route(a_request(), request_id="", at_s=0.0, policy=Slow())
    assert router.n_open == 1


def test_the_requests_own_bound_comes_before_the_pools():
    router = a_router(2, ttft_slo_s=1.0)
    patient = a_request(ttft_slo_s=20.0, priority=-1)
    assert router.route(patient, request_id="", at_s=0.0, policy=Slow())
