import os
import random
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest

from builders import live_settings
from learning_worlds import LinearWorld
from lodestar_extproc.learning.background import TrainingInPlace, training_process
from lodestar_extproc.learning.mlp import MLPPredictor


class Apprentice(Executor):
    """Trains when told to."""

    def __init__(self):
        self.jobs, self.shut_down = [], False

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        self.jobs.append((future, fn, args))
        return future

    def shutdown(self, wait=True, *, cancel_futures=False):
        self.shut_down = True

    def work(self):
        future, fn, args = self.jobs.pop(0)
        future.set_result(fn(*args))


def taught(predictor, world, n):
    for sample in world.samples(n):
        predictor.learn(sample)


def predict(predictor, world, candidates):
    return predictor.predict(candidates.features, world.endpoints).ttft_s


def test_predicts_by_the_old_network_while_the_next_is_trained():
    apprentice, world = Apprentice(), LinearWorld()
    predictor = MLPPredictor(
        random.Random(0), live_settings(mlp_retrain_samples=200), start_executor=lambda: apprentice
    )
    candidates = world.candidates()
    taught(predictor, world, 200)
    assert not predictor.is_trained
    apprentice.work()
    taught(predictor, world, 200)
    assert predictor.is_trained
    first = predict(predictor, world, candidates)
    assert (predict(predictor, world, candidates) == first).all()
    assert len(apprentice.jobs) == 1

    apprentice.work()
    taught(predictor, world, 1)
    assert (predict(predictor, world, candidates) != first).any()


def test_trains_one_network_at_a_time():
    apprentice, world = Apprentice(), LinearWorld()
    predictor = MLPPredictor(
        random.Random(0), live_settings(mlp_retrain_samples=50), start_executor=lambda: apprentice
    )
    taught(predictor, world, 500)

    assert len(apprentice.jobs) == 1


def test_a_failed_training_keeps_the_network_and_starts_a_new_process_for_the_next():
    world, started = LinearWorld(), []

    def start():
        started.append(TrainingInPlace() if not started else Apprentice())
        return started[-1]

    predictor = MLPPredictor(
        random.Random(0), live_settings(mlp_retrain_samples=200), start_executor=start
    )
    taught(predictor, world, 200)
    candidates = world.candidates()
    before = predict(predictor, world, candidates)
    predictor._training._executor = broken = Apprentice()
    taught(predictor, world, 200)
    broken.jobs[0][0].set_exception(BrokenProcessPool("killed"))
    taught(predictor, world, 200)

    assert predictor.failed_trainings == 1
    assert broken.shut_down
    assert (predict(predictor, world, candidates) == before).all()
    assert len(started) == 2
    assert len(started[1].jobs) == 1


def test_a_pool_that_refuses_work_is_a_failed_training():
    dead = ProcessPoolExecutor(1)
    dead.shutdown()
    predictor = MLPPredictor(
        random.Random(0), live_settings(mlp_retrain_samples=10), start_executor=lambda: dead
    )
    taught(predictor, LinearWorld(), 10)

    assert predictor.failed_trainings == 1
    assert not predictor.is_trained


def test_inputs_beyond_the_trained_range_predict_as_at_its_edge():
    world = LinearWorld()
    predictor = MLPPredictor(
        random.Random(0), live_settings(mlp_retrain_samples=300), start_executor=TrainingInPlace
    )
    taught(predictor, world, 300)
    features = world.candidates().features
    features.values[:, 8:] = 1e8
    far = predictor.predict(features, world.endpoints).ttft_s
    features.values[:, 8:] = 1e9

    assert (predictor.predict(features, world.endpoints).ttft_s == far).all()
    assert np.isfinite(far).all()


def where_and_how_nice():
    return os.getpid(), os.nice(0)


def test_trains_in_a_process_of_its_own_that_steps_back_and_ends():
    with training_process() as executor:
        elsewhere = executor.submit(where_and_how_nice)
        world = LinearWorld()
        predictor = MLPPredictor(
            random.Random(0),
            live_settings(mlp_retrain_samples=300),
            start_executor=lambda: executor,
        )
        taught(predictor, world, 300)
        deadline = time.monotonic() + 50
        while not predictor.is_trained and time.monotonic() < deadline:
            time.sleep(0.05)
            taught(predictor, world, 1)
        pid, niceness = elsewhere.result()

        assert predictor.is_trained
        assert pid != os.getpid()
        assert niceness >= 10
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_closing_without_a_training_starts_no_process():
    predictor = MLPPredictor(
        random.Random(0), live_settings(), start_executor=lambda: pytest.fail("started")
    )
    predictor.close()
