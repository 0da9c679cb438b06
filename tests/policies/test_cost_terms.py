"""The parts of a cost add up to what the choice was made by, for every cost function."""

from __future__ import annotations

import random

import numpy as np
import pytest

from builders import live_settings
from learning_worlds import a_snapshot, see
from lodestar_extproc.decision import Reason
from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.fleet.demand import DemandSnapshot
from lodestar_extproc.learning.predictor import Estimate
from lodestar_extproc.policies.cost import Externality, GreedyTTFT
from lodestar_extproc.policies.end_to_end import EndToEnd
from lodestar_extproc.policies.goodput import Goodput
from metrics_world import World

N = 3
ENDPOINTS = tuple(Endpoint(f"10.0.0.{i}:80", "a30" if i else "h100") for i in range(N))


def interval(ttft_s, _endpoints):
    return 0.5 * ttft_s, 2.0 * ttft_s


def functions(settings):
    live = live_settings(**settings)
    externality = Externality(live)
    own_tokens = Externality(live, prices_slower_tokens=False)
    return [
        GreedyTTFT(),
        externality,
        Goodput(externality, interval, live),
        EndToEnd(own_tokens, lambda endpoints: np.linspace(1.0, 3.0, len(endpoints)), live),
    ]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("outgrown", [False, True])
@pytest.mark.parametrize(
    "settings", [{}, {"ttft_slo_s": 0.5}, {"backlog_limit_s": 0.2, "decode_weight": 0.4}]
)
def test_the_terms_add_up_to_the_score(settings, outgrown, seed):
    rng = np.random.default_rng(seed)
    columns = {
        "decode_requests": rng.integers(0, 40, N).astype(float),
        "kv_capacity_tokens": np.array([20_000.0, np.nan, 100_000.0]),
    }
    candidates = see(a_snapshot(ENDPOINTS, at_s=0.0, **columns), 1000.0)
    demand = DemandSnapshot(rng.uniform(0, 20), *rng.uniform(0, 0.9, (3, N)), (), outgrown)
    object.__setattr__(candidates, "demand", demand)
    estimate = Estimate(*rng.uniform(0.01, 2.0, (4, N)))

    for function in functions(settings):
        terms = function.terms(estimate, candidates)
        assert sum(terms.values()) == pytest.approx(function.score(estimate, candidates))
        assert all(term.shape == (N,) for term in terms.values())


@pytest.mark.parametrize("cost", ["ttft", "externality", "goodput", "end_to_end"])
def test_a_decision_of_the_router_keeps_what_it_was_weighed_by(cost):
    world = World(burn_in_samples=1, cost=cost, ttft_slo_s=0.5)
    world.serve(30)
    world.router.fleet.health.failed("10.0.0.1:8000", world.now_s)
    world.router.learner.penalise("10.0.0.1:8000", world.now_s)
    decision = world.decide()
    account, candidates = decision.ranking.account, decision.candidates

    terms = account.terms_s(candidates)
    assert sum(terms.values()) == pytest.approx(account.cost_s)
    low, high = account.interval_s(candidates)
    assert (low < high).all()
    if decision.ranking.reason is Reason.MODEL:
        assert int(np.argmin(account.cost_s)) == decision.chosen


def test_the_fallbacks_choice_is_told_where_it_can_be():
    stateless = World(burn_in_samples=1, fallback_policy="least_request")
    turns = World(burn_in_samples=1, fallback_policy="round_robin")
    for world in (stateless, turns):
        world.serve(30)
    told = stateless.decide()

    fallback = told.ranking.account.fallback
    expected = fallback.rank(told.candidates, random.Random(0)).order[0]
    assert told.ranking.account.fallback_choice(told.candidates) == expected
    assert told.ranking.account.fallback_policy == "least_request"
    assert turns.decide().ranking.account.fallback_choice(told.candidates) is None
