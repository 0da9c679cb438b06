"""What was decided is counted in a moment, and before anybody looks again or hears what followed."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import a_prompt, a_request, a_router
from lodestar_extproc.completion import Completion, FirstToken, Outcome
from lodestar_extproc.config import PoolSettings
from lodestar_extproc.routing.assembly import apply_settings

DO = st.sampled_from(["route", "route", "route", "first token", "end", "turn", "join", "leave"])


class Told:
    """A listener that remembers."""

    def __init__(self):
        self.decided_ids = []

    def decided(self, decision):
        self.decided_ids.append(decision.decision_id)

    def first_token(self, decision, first_token):
        assert decision.decision_id in self.decided_ids

    def ended(self, request):
        assert request.decision.decision_id in self.decided_ids


def a_router_that_counts_later(n=3, **given):
    due, told = [], Told()
    router = a_router(n, listeners=[told], **given)
    router.departures.count_later(due.append)
    return router, due, told


def ask(router, at_s=1.0, seed=0):
    return router.route(a_request(a_prompt(300, seed=seed)), request_id="", at_s=at_s)


def test_a_decision_is_counted_when_its_turn_comes():
    router, due, told = a_router_that_counts_later()
    decision = ask(router)
    assert router.fleet.n_in_flight == 0
    assert not told.decided_ids
    assert router.n_open == 1

    for each in due:
        each()
    assert router.fleet.n_in_flight == 1
    assert told.decided_ids == [decision.decision_id]


LOOKS = {
    "the next decision": lambda router, _: ask(router, 1.1),
    "who asks for candidates": lambda router, _: router.candidates(a_request(), 1.1),
    "its first token": lambda router, d: router.first_token(
        FirstToken(d.decision_id, 1.1, d.address)
    ),
    "other settings": lambda router, _: apply_settings(router, PoolSettings(policy="random")),
    "other endpoints": lambda router, _: router.set_endpoints(router.fleet.endpoints[:2]),
    "nobody who serves": lambda router, _: router.departures.count_later(None),
}


@pytest.mark.parametrize("looks", LOOKS.values(), ids=LOOKS)
def test_it_is_counted_before(looks):
    router, _, told = a_router_that_counts_later()
    decision = ask(router)
    looks(router, decision)
    assert told.decided_ids[0] == decision.decision_id
    assert router.fleet.n_in_flight >= 1 or decision.address not in router.fleet.endpoints


def test_its_end_gives_back_what_it_took():
    router, due, told = a_router_that_counts_later()
    decision = ask(router)
    gone = Completion(1.2, Outcome.CLIENT_GONE, decision_id=decision.decision_id)
    assert router.complete(gone)
    for each in due:
        each()
    assert told.decided_ids == [decision.decision_id]
    assert router.fleet.n_in_flight == router.n_open == 0


def test_one_whose_endpoint_leaves_meanwhile_takes_nothing():
    router, due, _ = a_router_that_counts_later()
    decision = ask(router)
    router.set_endpoints([e for e in router.fleet.endpoints if e.address != decision.address])
    for each in due:
        each()
    assert router.fleet.n_in_flight == 0


def run(steps, *, later):
    """What is decided, and what is in flight in the end, when *steps* happen one after the other."""
    due, at_s, found, opened = [], 1.0, [], []
    router = a_router(4, burn_in_samples=5)
    everyone = router.fleet.endpoints
    if later:
        router.departures.count_later(due.append)
    rng = random.Random(1)
    for what, number in steps:
        at_s += 0.05
        if what == "route":
            opened.append(ask(router, at_s, number))
            found.append(opened[-1].addresses)
        elif what == "first token" and opened:
            decision = rng.choice(opened)
            router.first_token(FirstToken(decision.decision_id, at_s, decision.address))
        elif what == "end" and opened:
            decision = opened.pop(number % len(opened))
            gone = Completion(at_s, Outcome.CLIENT_GONE, decision_id=decision.decision_id)
            router.complete(gone)
        elif what == "turn":
            while due:
                due.pop(0)()
        elif what in ("join", "leave"):
            router.set_endpoints(everyone if what == "join" else everyone[:3])
    router.departures.catch_up()
    return found, router.fleet.everything(at_s).values


@given(steps=st.lists(st.tuples(DO, st.integers(0, 5)), max_size=60))
@settings(deadline=None)
def test_whenever_it_is_counted_the_same_is_decided(steps):
    found, values = run(steps, later=True)
    found_at_once, values_at_once = run(steps, later=False)
    assert found == found_at_once
    assert np.array_equal(values, values_at_once, equal_nan=True)
