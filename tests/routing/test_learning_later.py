"""While it serves, a pool learns a little after its first tokens passed: all of it, in their order."""

import random

import pytest

from builders import a_prompt, a_request, a_router
from lodestar_extproc.completion import Completion, FirstToken, Outcome
from lodestar_extproc.config import PoolSettings
from lodestar_extproc.learning.checkpoint import read_checkpoint
from lodestar_extproc.routing.assembly import apply_settings
from lodestar_extproc.service.saved_learning import SavedLearning

N_REQUESTS = 60


class Taught:
    """What a learner was given, in its order; it learns it too."""

    def __init__(self, monkeypatch, learner):
        self.samples = []
        learn = learner.learn

        def noted(sample):
            self.samples.append((sample.address, sample.at_s, sample.ttft_s, sample.censored))
            learn(sample)

        monkeypatch.setattr(learner, "learn", noted)


def a_pool_that_learns_later(**changes):
    router, due = a_router(4, **changes), []
    router.samples.learn_later(lambda _delay_s, act: due.append(act))
    return router, due


def serve(router, n=N_REQUESTS, seed=0):
    """First tokens in another order than requests, and some clients who leave before theirs."""
    rng, at_s, told = random.Random(seed), 0.0, []
    routed = []
    for i in range(n):
        at_s += rng.expovariate(20.0)
        request = a_request(a_prompt(200, seed=i % 7))
        routed.append((rng.uniform(0.05, 2.0), router.route(request, request_id="", at_s=at_s)))
    for ttft_s, decision in sorted(routed, key=lambda each: each[1].at_s + each[0]):
        now_s = decision.at_s + ttft_s
        if rng.random() < 0.1:
            gone = Completion(now_s, Outcome.CLIENT_GONE, decision_id=decision.decision_id)
            router.complete(gone)
        else:
            router.first_token(FirstToken(decision.decision_id, now_s, decision.address))
            told.append(now_s)
    return told


@pytest.fixture
def later(monkeypatch):
    router, due = a_pool_that_learns_later()
    return router, due, Taught(monkeypatch, router.learner)


def test_a_first_token_passes_without_being_learned_from(later):
    router, due, taught = later
    serve(router)

    assert (taught.samples, len(due)) == ([], 1)
    assert len(router.samples) > N_REQUESTS / 2


def test_all_is_learned_in_the_order_in_which_it_passed(later, monkeypatch):
    router, due, taught = later
    at_once = a_router(4)
    first_told = Taught(monkeypatch, at_once.learner)
    # Before it is trusted a fallback decides: the same, whatever is known.
    serve(at_once, n=40)
    serve(router, n=40)
    while due:
        due.pop(0)()

    assert taught.samples == first_told.samples
    assert router.learner.state() == at_once.learner.state()


def test_who_leaves_takes_along_what_waited(later):
    router, _, taught = later
    serve(router)
    n_waiting, gone = len(router.samples), router.fleet.endpoints[0].address
    router.set_endpoints(router.fleet.endpoints[1:])

    assert len(taught.samples) == n_waiting
    assert gone in {address for address, *_ in taught.samples}
    assert gone not in {e.address for e in router.learner.status().endpoints}


def test_another_predictor_finds_nothing_of_the_first_ones_waiting(later):
    router, _, taught = later
    serve(router)
    n_waiting, first = len(router.samples), router.learner
    apply_settings(router, PoolSettings(predictor="bayesian_linear"))

    assert router.learner is not first
    assert (len(taught.samples), len(router.samples)) == (n_waiting, 0)
    assert router.learner.status().n_samples == 0


@pytest.mark.parametrize("when", ["save", "adopt"])
def test_a_checkpoint_holds_what_waited(tmp_path, when):
    path = tmp_path / "kept.checkpoint"
    router, _ = a_pool_that_learns_later(checkpoint_path=str(path))
    saved = SavedLearning(router)
    saved.restore()
    n_told = len(serve(router))
    other = PoolSettings(checkpoint_path=str(tmp_path / "other"))
    if when == "save":
        saved.save()
    else:
        saved.adopt(lambda: apply_settings(router, other))

    assert read_checkpoint(path, "engine")["n_learned"] >= n_told > 0
    assert len(router.samples) == 0
