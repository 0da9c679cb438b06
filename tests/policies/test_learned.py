import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from builders import live_settings
from learning_worlds import LinearWorld
from lodestar_extproc.decision import Ranking, Reason
from lodestar_extproc.features import Feature
from lodestar_extproc.learning.engine_predictor import EnginePredictor
from lodestar_extproc.learning.learner import Learner
from lodestar_extproc.learning.predictor import Estimate
from lodestar_extproc.learning.trust import Trust
from lodestar_extproc.policies.cost import Externality, GreedyTTFT
from lodestar_extproc.policies.learned import Learned


class AlwaysLast:
    """A fallback whose choice is easily told from a predictor's."""

    name = "always_last"

    def rank(self, candidates, rng):
        return Ranking(tuple(reversed(range(len(candidates)))), propensity=0.25)


RNG = random.Random(0)


def a_policy(learner=None, cost=None, exploration_ratio=0.0):
    live = live_settings(exploration_ratio=exploration_ratio)
    learner = Learner(EnginePredictor(), Trust(live_settings())) if learner is None else learner
    return Learned(learner, cost or Externality(live_settings()), AlwaysLast(), live)


def a_taught_learner(world, n=200, predictor=None, **limits):
    learner = Learner(
        EnginePredictor() if predictor is None else predictor, Trust(live_settings(**limits))
    )
    world.teach(learner, n)
    return learner


def a_world(*accelerators):
    # The last, which the fallback always takes, is the slowest.
    return LinearWorld(accelerators or ("fast", "fast", "slow"), noise=0.1)


def test_the_fallback_decides_in_burn_in_and_the_predictor_after():
    world = a_world()
    learner = a_taught_learner(world, 49, burn_in_samples=50)
    policy = a_policy(learner)
    before = [policy.rank(world.candidates(), RNG) for _ in range(20)]
    world.teach(learner, 60)
    after = [policy.rank(world.candidates(), RNG) for _ in range(20)]

    assert {r.reason for r in before} == {Reason.BURN_IN}
    assert {r.order for r in before} == {(2, 1, 0)}
    assert {r.reason for r in after} == {Reason.MODEL}
    assert {r.order[0] for r in after} == {0, 1}


def test_the_predictors_choice_is_the_one_that_goes_out():
    world, learner = a_world(), None
    learner = a_taught_learner(world)
    policy = a_policy(learner, GreedyTTFT())
    for _ in range(50):
        candidates = world.candidates()
        predicted = learner.predict(candidates.features, world.endpoints).ttft_s

        assert policy.rank(candidates, RNG).order == tuple(np.argsort(predicted))


def test_predictions_are_on_the_ranking_while_the_fallback_decides():
    world = a_world()
    learner = a_taught_learner(world, 5)
    ranking = a_policy(learner).rank(world.candidates(), RNG)

    assert ranking.reason is Reason.BURN_IN
    assert ranking.predicted_ttft_s.shape == ranking.service_s.shape == (3,)
    assert ranking.propensity == 0.25


def test_nothing_is_predicted_from_no_samples():
    ranking = a_policy().rank(a_world().candidates(), RNG)

    assert ranking.predicted_ttft_s is None
    assert ranking.service_s is None


class Told(AlwaysLast):
    """Remembers what it was told."""

    def __init__(self):
        self.rankings = []

    def dispatched(self, candidates, ranking):
        self.rankings.append(ranking)


@pytest.mark.parametrize(("n_taught", "told"), [(0, True), (200, False)])
def test_the_fallback_is_told_of_the_requests_that_it_decided(n_taught, told):
    world, fallback = a_world(), Told()
    live = live_settings()
    learner = a_taught_learner(world, n_taught)
    policy = Learned(learner, Externality(live), fallback, live)
    candidates = world.candidates()
    ranking = policy.rank(candidates, RNG)
    assert fallback.rankings == []

    policy.dispatched(candidates, ranking)
    assert fallback.rankings == ([ranking] if told else [])


def test_an_untrusted_predictor_does_not_decide():
    world = a_world()
    learner = a_taught_learner(world)
    for sample in world.samples(100):
        learner.learn(replace(sample, predicted_ttft_s=5 * sample.ttft_s))
    ranking = a_policy(learner).rank(world.candidates(), RNG)

    assert ranking.reason is Reason.UNTRUSTED
    assert ranking.order == (2, 1, 0)


def test_the_fallback_decides_where_the_predictor_would_choose_an_endpoint_in_doubt():
    world = a_world("fast", "slow", "slow")
    learner = a_taught_learner(world, 600)
    policy = a_policy(learner, GreedyTTFT())
    sure = [world.observe(world.candidates(), 1) for _ in range(100)]
    wrong = [world.observe(world.candidates(), 0) for _ in range(40)]
    for k, sample in enumerate(sure):
        learner.learn(replace(sample, predicted_ttft_s=sample.ttft_s))
        if k % 5 == 0:
            one = wrong.pop()
            learner.learn(replace(one, predicted_ttft_s=one.ttft_s * 4))
    reasons = Counter()
    for _ in range(200):
        candidates = world.candidates()
        predicted = learner.predict(candidates.features, world.endpoints).ttft_s
        ranking = policy.rank(candidates, RNG)
        reasons[int(predicted.argmin()), ranking.reason] += 1

    assert set(reasons) <= {(0, Reason.UNTRUSTED), (1, Reason.MODEL), (2, Reason.MODEL)}
    assert len(reasons) >= 2


def test_a_choice_beyond_all_that_was_learned_is_left_to_the_fallback():
    world = a_world()
    policy = a_policy(a_taught_learner(world))
    candidates = world.candidates()
    candidates.features.values[:, Feature.WORK_KTOKENS : Feature.KV_DEFICIT_KTOKENS] *= 1e4

    assert policy.rank(candidates, RNG).reason is Reason.OUT_OF_RANGE


def test_a_strange_candidate_that_is_not_chosen_does_not_matter():
    world = a_world()
    policy = a_policy(a_taught_learner(world))
    candidates = world.candidates()
    candidates.features.values[1, Feature.WORK_KTOKENS : Feature.KV_DEFICIT_KTOKENS] *= 1e4
    ranking = policy.rank(candidates, RNG)

    assert ranking.reason is Reason.MODEL
    assert ranking.order[-1] == 1


class NaNPredictor(EnginePredictor):
    def predict(self, features, endpoints):
        sound = super().predict(features, endpoints)
        return Estimate(sound.ttft_s * np.nan, *(sound.service_s,) * 2, sound.s_per_ktoken)


def test_nan_never_decides():
    world = a_world()
    policy = a_policy(a_taught_learner(world, predictor=NaNPredictor(), trust_max_error_ratio=1e12))
    ranking = policy.rank(world.candidates(), RNG)

    assert ranking.reason is Reason.UNTRUSTED
    assert ranking.order == (2, 1, 0)


def test_a_failed_endpoint_is_avoided_for_a_while():
    world = a_world("slow", "slow", "slow")
    learner = a_taught_learner(world)
    policy = a_policy(learner, GreedyTTFT())
    candidates = world.candidates()
    best = policy.rank(candidates, RNG).order[0]
    for _ in range(10):
        learner.penalise(world.endpoints[best].address, candidates.snapshot.at_s)

    assert policy.rank(candidates, RNG).order[-1] == best
    later = replace(
        candidates, snapshot=replace(candidates.snapshot, at_s=candidates.snapshot.at_s + 300)
    )
    assert policy.rank(later, RNG).order[0] == best


def explored(world, learner, ratio, n=400):
    policy, rng = a_policy(learner, GreedyTTFT(), exploration_ratio=ratio), random.Random(1)
    for _ in range(n):
        candidates = world.candidates()
        predicted = learner.predict(candidates.features, world.endpoints).ttft_s
        yield policy.rank(candidates, rng), predicted


def test_an_endpoint_of_which_little_is_known_is_tried_now_and_then():
    world = LinearWorld(("slow",) * 3)
    learner = Learner(EnginePredictor(), Trust(live_settings()))
    world.teach(learner, 200, among=[0, 1])
    rankings = list(explored(world, learner, 0.2))
    tried = [r for r, _ in rankings if r.reason is Reason.EXPLORATION]

    assert 0 < len(tried) < 0.2 * len(rankings)
    assert {r.order[0] for r in tried} == {2}
    assert {r.propensity for r in tried} == {0.2}
    assert all(sorted(r.order) == [0, 1, 2] for r, _ in rankings)
    for ranking, predicted in rankings:
        if ranking.reason is Reason.EXPLORATION:
            assert predicted[2] <= 2 * predicted.min() + 0.1


def test_propensity_is_how_often_it_happens():
    world = LinearWorld(("slow",) * 3)
    learner = Learner(EnginePredictor(), Trust(live_settings()))
    world.teach(learner, 200, among=[0, 1])
    candidates = world.candidates()
    while not 0 < np.ptp(learner.predict(candidates.features, world.endpoints).ttft_s) < 0.1:
        candidates = world.candidates()
    policy, rng = a_policy(learner, GreedyTTFT(), exploration_ratio=0.3), random.Random(2)
    rankings = [policy.rank(candidates, rng) for _ in range(2000)]
    counts = Counter(r.order[0] for r in rankings)
    propensity = {r.order[0]: r.propensity for r in rankings}

    assert sum(propensity.values()) == pytest.approx(1.0)
    for index, n in counts.items():
        assert n / 2000 == pytest.approx(propensity[index], abs=0.04)


def test_well_known_endpoints_are_not_explored():
    world = a_world("slow", "slow", "slow")
    learner = a_taught_learner(world, 400)

    for ranking, _ in explored(world, learner, 0.5):
        assert ranking.reason is Reason.MODEL
        assert ranking.propensity == 1.0


def test_the_fallback_is_not_explored_away():
    world = a_world()
    policy = a_policy(a_taught_learner(world, 10), exploration_ratio=1.0)

    assert {policy.rank(world.candidates(), RNG).order for _ in range(50)} == {(2, 1, 0)}


def test_beats_its_fallback_where_endpoints_differ():
    world = a_world("fast", "slow", "slow")
    policy = a_policy(a_taught_learner(world, 300), GreedyTTFT())
    learned, fallback = [], []
    for _ in range(200):
        candidates = world.candidates()
        truth = world.ttft_s(candidates)
        learned.append(truth[policy.rank(candidates, RNG).order[0]])
        fallback.append(truth[AlwaysLast().rank(candidates, RNG).order[0]])

    assert np.mean(learned) < 0.5 * np.mean(fallback)
