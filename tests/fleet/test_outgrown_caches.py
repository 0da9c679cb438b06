"""Caches are outgrown where much of what prompts ask for is lost, for long, and memory is full."""

from collections import deque

import numpy as np
import pytest

from builders import a_prompt, a_request, a_router
from lodestar_extproc.completion import Completion, FirstToken, Outcome
from lodestar_extproc.endpoint import EndpointMetrics
from lodestar_extproc.fleet.outgrown_caches import (
    LEAST_PROMPTS_A_CACHE,
    SUSTAINED_S,
    OutgrownCaches,
)

PROMPT_TOKENS = 1000.0
FULL, ROOMY = np.array([0.9, 1.1]), np.array([0.3, 0.8])
CAPACITY = np.array([10_000.0, 20_000.0])


def run(caches, seconds, lost=0.7, memory=FULL, capacity=CAPACITY, from_s=0.0, per_s=4):
    """So many requests a second, of each of which a share was cached and is lost."""
    for i in range(int(seconds * per_s)):
        caches.count(PROMPT_TOKENS, lost * PROMPT_TOKENS, 0.99)
        caches.look(memory, capacity, from_s + i / per_s)
    return caches


def test_most_lost_for_half_a_minute_while_requests_wait_for_memory():
    caches = run(OutgrownCaches(), 2.0 * SUSTAINED_S)

    assert caches.outgrown
    assert caches.lost_ratio == pytest.approx(0.7)


@pytest.mark.parametrize(
    "world",
    [
        pytest.param({"lost": 0.2}, id="caches mostly hit"),
        pytest.param({"lost": 0.0}, id="nothing is asked for again"),
        pytest.param({"memory": ROOMY}, id="memory is free"),
        pytest.param({"seconds": 0.9 * SUSTAINED_S}, id="a crowd that settles"),
        pytest.param({"per_s": 0.1}, id="too few to tell"),
        pytest.param({"capacity": np.array([4000.0, 5000.0])}, id="few prompts fill a cache"),
        pytest.param({"capacity": np.array([np.inf, np.nan])}, id="nobody knows the caches' size"),
    ],
)
def test_they_are_not_where(world):
    assert not run(OutgrownCaches(), **{"seconds": 3.0 * SUSTAINED_S} | world).outgrown


def test_a_cache_whose_size_nobody_knows_does_not_hide_those_that_are_known():
    capacity = np.array([np.inf, 1.1 * LEAST_PROMPTS_A_CACHE * PROMPT_TOKENS])

    assert run(OutgrownCaches(), 2.0 * SUSTAINED_S, capacity=capacity).outgrown


def test_they_stay_outgrown_as_what_is_spared_hits_again_and_until_memory_is_free():
    caches = run(OutgrownCaches(), 2.0 * SUSTAINED_S)
    still = run(caches, 100.0, lost=0.1, from_s=2.0 * SUSTAINED_S).outgrown
    at_last = run(caches, 1.0, memory=ROOMY, from_s=200.0).outgrown

    assert (still, at_last) == (True, False)


def test_where_sparing_caches_is_in_vain_it_ends_and_is_tried_again_later():
    caches, outgrown = OutgrownCaches(), []
    for minute in range(14):
        run(caches, 60.0, lost=0.9, from_s=60.0 * minute)
        outgrown.append(caches.outgrown)

    assert outgrown == [True, False, *[False] * 10, True, False]


def test_a_pause_begins_the_half_minute_anew():
    caches = run(OutgrownCaches(), 0.9 * SUSTAINED_S)
    run(caches, 1.0, memory=ROOMY, from_s=0.9 * SUSTAINED_S)
    run(caches, 0.9 * SUSTAINED_S, from_s=SUSTAINED_S)

    assert not caches.outgrown


def test_to_lose_more_than_was_asked_for_is_to_lose_all():
    caches = OutgrownCaches()
    caches.count(100.0, 160.0, 1.0)

    assert caches.lost_ratio == 1.0
    assert OutgrownCaches().lost_ratio == 0.0


def outgrown_by(n_sessions, hit_tokens=None):
    """So many sessions in turn before one cache that holds thirteen; twelve generate at a time.

    Args:
        hit_tokens: of each prompt, what the engine says that it finds; None where it says nothing.
    """
    router = a_router(1, policy="learned", frozen_after_s=3600.0)
    prompts = [a_request(a_prompt(3000, seed=i)) for i in range(n_sessions)]
    generate = deque()
    for i in range(300):
        decision = router.route(prompts[i % n_sessions], request_id="", at_s=i / 4)
        router.first_token(FirstToken(decision.decision_id, i / 4 + 0.1))
        if hit_tokens is not None:
            looked_up = 3000.0 * (i + 1)
            said = EndpointMetrics(
                prefix_query_tokens=looked_up, prefix_hit_tokens=hit_tokens * (i + 1)
            )
            router.fleet.record_metrics(decision.address, said, i / 4 + 0.1)
        generate.append(decision.decision_id)
        if len(generate) > 12:
            done = Completion(i / 4, Outcome.SERVED, decision_id=generate.popleft())
            assert router.complete(done)
    return router


@pytest.mark.parametrize(("n_sessions", "outgrown"), [(10, False), (20, True), (100, False)])
def test_a_router_knows_by_what_it_sent(n_sessions, outgrown):
    """A hundred in turn are beyond what any order of eviction could keep."""
    caches = outgrown_by(n_sessions).demand.caches

    assert caches.outgrown is outgrown
    assert caches.lost_ratio == pytest.approx(1.0 if outgrown else 0.0, abs=0.05)


@pytest.mark.parametrize(("hit_tokens", "outgrown"), [(3000.0, False), (0.0, True)])
def test_what_the_engine_proves_not_to_find_is_lost(hit_tokens, outgrown):
    """Agents without pauses: what one has cached goes to those that wait, before its next turn."""
    assert outgrown_by(10, hit_tokens).demand.caches.outgrown is outgrown


def test_asking_is_told_and_changes_nothing():
    router = outgrown_by(20)
    asked = [router.candidates(a_request(), at_s).demand.outgrown for at_s in (75.0, 1e6, 75.0)]

    assert asked == [True, True, True]
    assert router.demand.caches.outgrown
