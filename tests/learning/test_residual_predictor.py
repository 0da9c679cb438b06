import random
import time
from concurrent.futures import Executor, Future

import numpy as np
import pytest

from learning_worlds import LinearWorld
from lodestar_extproc.features import Feature
from lodestar_extproc.learning.background import TrainingInPlace
from lodestar_extproc.learning.engine_predictor import EnginePredictor
from lodestar_extproc.learning.residual_predictor import (
    MAX_WAITING_SAMPLES,
    ResidualPredictor,
    Skill,
)

DECODES, PROMPT = Feature.DECODE_REQUESTS, Feature.PROMPT_TOKENS


class BentWorld(LinearWorld):
    """Long prompts beside many decodes take half as long again: no sum of features says so."""

    def ttft_s(self, candidates):
        values = candidates.features.values
        bent = (values[:, DECODES] > 20) & (values[:, PROMPT] > 3000)
        return super().ttft_s(candidates) * np.where(bent, 1.8, 1.0)


class Apprentice(Executor):
    """Trains when told to."""

    def __init__(self):
        self.jobs = []

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        self.jobs.append((future, fn, args))
        return future

    def work(self):
        future, fn, args = self.jobs.pop(0)
        future.set_result(fn(*args))


def a_predictor(executor=TrainingInPlace, **changes):
    return ResidualPredictor(random.Random(0), start_executor=executor, **changes)


def taught(predictor, world, n):
    for sample in world.samples(n):
        predictor.learn(sample)
    return predictor


@pytest.fixture(scope="module")
def predictors():
    """The engine predictor and this one, of the same samples of a bent world."""
    return taught(EnginePredictor(), BentWorld(), 1500), taught(a_predictor(), BentWorld(), 1500)


def test_removes_an_error_that_the_engine_predictor_cannot_express(predictors):
    engine, predictor = predictors

    assert BentWorld(seed=1).error_ratio(engine) > 0.12
    assert BentWorld(seed=1).error_ratio(predictor) < 0.75 * BentWorld(seed=1).error_ratio(engine)
    assert predictor.weight > 0.6


def test_does_no_harm_where_there_is_nothing_to_learn():
    engine = taught(EnginePredictor(), LinearWorld(), 1500)
    predictor = taught(a_predictor(), LinearWorld(), 1500)

    assert predictor.weight < 0.3
    assert LinearWorld(seed=1).error_ratio(predictor) < 1.1 * LinearWorld(seed=1).error_ratio(
        engine
    )


def test_what_a_request_adds_stays_the_engine_predictors(predictors):
    world, (engine, predictor) = BentWorld(), predictors
    features = world.candidates().features
    corrected, plain = (m.predict(features, world.endpoints) for m in (predictor, engine))

    assert (corrected.ttft_s != plain.ttft_s).any()
    assert (corrected.service_s == plain.service_s).all()
    assert (corrected.backlog_s == plain.backlog_s).all()


class TestSkill:
    def test_of_words_that_come_true_is_one(self):
        rng, skill = random.Random(0), Skill()
        for _ in range(500):
            came = rng.gauss(0, 0.3)
            skill.record(came, came)

        assert skill.weight > 0.8

    @pytest.mark.parametrize("sign", [0.0, -1.0])
    def test_of_words_without_truth_or_against_it_is_none(self, sign):
        rng, skill, weights = random.Random(0), Skill(), []
        for _ in range(3000):
            came = rng.gauss(0, 0.3)
            skill.record(sign * came + rng.gauss(0, 0.1), came)
            weights.append(skill.weight)

        assert np.mean(weights) < 0.03

    def test_of_exaggeration_is_a_half(self):
        rng, skill = random.Random(0), Skill()
        for _ in range(3000):
            came = rng.gauss(0, 0.3)
            skill.record(2 * came, came)

        assert skill.weight == pytest.approx(0.5, abs=0.06)

    def test_before_anything_was_said_is_none(self):
        skill = Skill()
        skill.record(0.0, 0.4)

        assert skill.weight == 0


def test_trees_that_turned_false_lose_their_word(predictors):
    predictor = a_predictor(Apprentice)  # so they learn no more
    predictor.restore(predictors[1].state())
    assert predictor.weight > 0.6
    taught(predictor, LinearWorld(seed=2), 1500)

    assert predictor.weight < 0.2


def test_trains_elsewhere_and_predicts_by_the_last_trees_meanwhile():
    apprentice = Apprentice()
    predictor, world = a_predictor(lambda: apprentice, batch_samples=200), BentWorld()
    taught(predictor, world, 700)
    assert predictor._forest is None
    assert len(apprentice.jobs) == 1
    apprentice.work()
    taught(predictor, world, 1)

    assert predictor._forest is not None
    assert len(apprentice.jobs) == 1  # with what came meanwhile
    assert len(apprentice.jobs[0][2][1]) == 501


def test_samples_that_wait_for_a_training_are_bounded():
    apprentice = Apprentice()
    predictor = taught(a_predictor(lambda: apprentice, batch_samples=10), LinearWorld(), 2500)

    assert len(predictor._waiting) == MAX_WAITING_SAMPLES


def test_a_failed_training_leaves_the_last_trees_and_the_next_begins_again():
    started = []

    def start():
        started.append(Apprentice())
        return started[-1]

    predictor, world = a_predictor(start, batch_samples=100), LinearWorld()
    taught(predictor, world, 100)
    started[0].jobs[0][0].set_exception(RuntimeError("killed"))
    taught(predictor, world, 100)

    assert len(started) == 2
    assert len(started[1].jobs) == 1


def test_trees_grow_in_a_process_of_their_own():
    predictor = ResidualPredictor(random.Random(0), batch_samples=100)
    taught(predictor, LinearWorld(), 100)
    deadline = time.monotonic() + 50
    while predictor._forest is None and time.monotonic() < deadline:
        time.sleep(0.05)
        taught(predictor, LinearWorld(), 1)
    predictor.close()

    assert predictor._forest is not None
