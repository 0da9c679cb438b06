"""What a pool learns over time, in worlds whose truth is known."""

from dataclasses import replace

import numpy as np
import orjson
import pytest

from builders import live_settings
from learning_worlds import LinearWorld
from lodestar_extproc.decision import Reason
from lodestar_extproc.learning.engine_predictor import EnginePredictor
from lodestar_extproc.learning.learner import Learner
from lodestar_extproc.learning.penalties import DECAY_S, FAILURE_PENALTY_S, MAX_PENALTY_S
from lodestar_extproc.learning.predictor import Estimate
from lodestar_extproc.learning.trust import Trust


def a_learner(predictor=None, **limits):
    return Learner(
        EnginePredictor() if predictor is None else predictor, Trust(live_settings(**limits))
    )


def reason(learner, world):
    return learner.status().reason


def test_learns_from_nothing_to_trust_within_a_hundred_samples():
    world, learner = LinearWorld(("fast", "fast", "slow", "slow"), noise=0.15), a_learner()
    assert reason(learner, world) is Reason.BURN_IN
    world.teach(learner, 100)

    assert reason(learner, world) is Reason.MODEL
    assert world.error_ratio(learner) < 0.12
    status = learner.status()
    assert status.n_samples == 100
    assert status.error_ratio < status.trivial_error_ratio


def test_interval_holds_about_four_fifths():
    world, learner = LinearWorld(("fast", "slow", "slow"), noise=0.3), a_learner()
    world.teach(learner, 1500)
    inside = []
    for _ in range(300):
        candidates = world.candidates()
        predicted = learner.predict(candidates.features, world.endpoints)
        ttft_s = world.observe(candidates, 1).ttft_s
        low_s, high_s = learner.interval_s(predicted.ttft_s, world.endpoints)
        inside.append(low_s[1] <= ttft_s <= high_s[1])

    assert np.mean(inside) == pytest.approx(0.8, abs=0.07)
    assert learner.status().coverage_ratio == pytest.approx(0.8, abs=0.05)


def test_error_counts_the_prediction_made_before_the_sample_was_known():
    world, learner = LinearWorld(), a_learner()
    world.teach(learner, 60)
    for sample in world.samples(60):
        learner.learn(replace(sample, predicted_ttft_s=3 * sample.ttft_s))

    assert learner.status().error_ratio == pytest.approx(2.0)


def test_a_slow_down_is_noticed_and_learned_within_fifty_samples():
    world, learner = LinearWorld(("slow",) * 4, noise=0.15), a_learner()
    world.teach(learner, 1000)
    changed = world.endpoints[2].address
    world.slow_down[changed] = 3.0
    assert world.error_ratio(learner, among=[2]) > 0.6
    world.teach(learner, 50, among=[2])

    assert world.error_ratio(learner, among=[2]) < 0.35
    assert world.error_ratio(learner, among=[0, 1, 3]) < 0.1
    by_address = {e.address: e for e in learner.status().endpoints}
    assert by_address[changed].drifts == learner.status().drifts == 1


def test_a_recovery_is_noticed_too():
    world, learner = LinearWorld(("slow",) * 3, noise=0.15), a_learner()
    world.slow_down[world.endpoints[0].address] = 3.0
    world.teach(learner, 900)
    world.slow_down[world.endpoints[0].address] = 1.0
    world.teach(learner, 50, among=[0])

    assert world.error_ratio(learner, among=[0]) < 0.35
    assert learner.status().drifts == 1


def test_noise_alone_is_no_drift():
    world, learner = LinearWorld(("slow",) * 2, noise=0.4), a_learner()
    world.teach(learner, 2000)

    assert learner.status().drifts == 0


def test_a_world_that_stops_making_sense_is_left_to_the_fallback():
    world, learner = LinearWorld(noise=0.1), a_learner()
    world.teach(learner, 200)
    assert reason(learner, world) is Reason.MODEL
    for sample in world.samples(200):
        factor = world.rng.choice([0.05, 0.1, 10.0, 20.0])
        learner.learn(replace(sample, ttft_s=sample.ttft_s * factor))
    assert reason(learner, world) is Reason.UNTRUSTED
    world.teach(learner, 1500)
    assert reason(learner, world) is Reason.MODEL


def test_a_request_given_up_before_its_prediction_teaches_nothing():
    world, learner = LinearWorld(), a_learner()
    world.teach(learner, 100)
    before = orjson.dumps(learner.state())
    for sample in world.samples(20):
        learner.learn(replace(sample, censored=True, ttft_s=0.001, predicted_ttft_s=0.5))

    assert orjson.dumps(learner.state()) == before
    assert learner.status().uninformative == 20


def test_a_request_given_up_after_its_prediction_raises_the_next():
    world, learner = LinearWorld(), a_learner()
    world.teach(learner, 100)
    sample = replace(next(world.samples(1)), censored=True, ttft_s=30.0, predicted_ttft_s=0.5)
    before = learner.predictor.ttft_s(sample)
    for _ in range(10):
        learner.learn(sample)

    assert learner.predictor.ttft_s(sample) > before


@pytest.mark.parametrize("label", [np.nan, np.inf, -1.0, 0.0])
def test_a_label_that_is_no_time_is_counted_and_not_learned(label):
    world, learner = LinearWorld(), a_learner()
    world.teach(learner, 60)
    before = orjson.dumps(learner.state())
    learner.learn(replace(next(world.samples(1)), ttft_s=label))

    assert orjson.dumps(learner.state()) == before
    assert learner.status().rejected == 1


class BrokenPredictor(EnginePredictor):
    """Learns, and answers with NaN."""

    def predict(self, features, endpoints):
        nan = np.full(len(endpoints), np.nan)
        return Estimate(nan, nan, nan, nan)

    def ttft_s(self, sample):
        return float("nan")


def test_a_predictor_that_answers_nan_is_not_trusted():
    world, learner = LinearWorld(), a_learner(BrokenPredictor(), burn_in_samples=10)
    world.teach(learner, 100)

    assert learner.status().n_samples == 100
    assert reason(learner, world) is Reason.UNTRUSTED


def test_failures_cost_and_fade():
    world, learner = LinearWorld(), a_learner()
    first, second = world.endpoints[:2]
    learner.penalise(first.address, 100.0)
    learner.penalise(first.address, 100.0)

    assert learner.penalty_s([first, second], 100.0).tolist() == [2 * FAILURE_PENALTY_S, 0.0]
    assert learner.penalty_s([first], 100.0 + 10 * DECAY_S)[0] < 0.001
    for _ in range(1000):
        learner.penalise(first.address, 200.0)
    assert learner.penalty_s([first], 200.0)[0] == MAX_PENALTY_S


def test_an_endpoint_that_left_leaves_nothing_behind():
    world, learner = LinearWorld(), a_learner()
    world.teach(learner, 200)
    gone = world.endpoints[1]
    learner.penalise(gone.address, 1.0)
    learner.left(gone.address)

    assert gone.address.encode() not in orjson.dumps(learner.state())
    assert gone.address not in [e.address for e in learner.status().endpoints]
    assert learner.n_samples([gone]) == [0]
    assert learner.penalty_s([gone], 1.0) is None
    assert learner.status().n_samples == 200


def test_a_restart_is_warm():
    world, learner, again = LinearWorld(("fast", "slow")), a_learner(), a_learner()
    world.teach(learner, 300)
    again.restore(orjson.loads(orjson.dumps(learner.state())))
    features = world.candidates().features
    first, second = (x.predict(features, world.endpoints) for x in (learner, again))

    assert (second.ttft_s == first.ttft_s).all()
    intervals = (x.interval_s(first.ttft_s, world.endpoints) for x in (learner, again))
    np.testing.assert_array_equal(*intervals)
    assert reason(again, world) is Reason.MODEL
    assert (again.n_samples(world.endpoints) == learner.n_samples(world.endpoints)).all()


def test_a_damaged_state_leaves_the_learner_as_it_was():
    world, learner = LinearWorld(), a_learner()
    world.teach(learner, 100)
    before = learner.state()
    for key in before:
        with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
            learner.restore({**before, "n_learned": 5, key: "?"})

        assert learner.state() == before
