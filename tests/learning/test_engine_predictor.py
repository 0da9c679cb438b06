"""The engine model against worked numbers, and how its levels lean on each other."""

import numpy as np
import pytest

from learning_worlds import COEFFICIENTS, LinearWorld, worked_decision
from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.learning.engine_predictor import PRIOR, EnginePredictor
from lodestar_extproc.learning.sample import TrainingSample

A, B = Endpoint("a:1", "a30"), Endpoint("b:1", "a30")


def worked_sample(address="a:1", accelerator="a30", **changes):
    values = {"ttft_s": 0.9, "at_s": 101.0, "predicted_ttft_s": 0.17734783}
    row = worked_decision().features.values[0]
    return TrainingSample(address, accelerator, row, **values | changes)


def test_features_of_the_worked_decision():
    engine = worked_decision().features.engine

    assert engine[0] == pytest.approx(
        [1, 1.06, 1.260314, 0.151238, 0.189047, 0.41202, 0, 0.112], abs=5e-7
    )
    assert engine[1] == pytest.approx(
        [1, 1.5, 1.371655, 0.411497, 0.35663, 0.1125, 0, 0.13], abs=5e-7
    )


def test_prediction_of_the_worked_decision():
    estimate = EnginePredictor().predict(worked_decision().features, (A, B))

    assert estimate.ttft_s == pytest.approx([0.177348, 0.217941], abs=5e-7)
    assert estimate.service_s == pytest.approx([0.098419, 0.171832], abs=5e-7)
    assert estimate.backlog_s == pytest.approx([0.048929, 0.016109], abs=5e-7)
    assert estimate.s_per_ktoken == pytest.approx([0.111230, 0.112305], abs=5e-7)


def test_two_worked_samples_move_type_and_endpoint():
    model = EnginePredictor()
    model.learn(worked_sample())

    # An endpoint without samples has its type's coefficients.
    assert model.coefficients(B) == pytest.approx(
        [0.030629, 0.102665, 0.020285, 0.000095, 0.020119, 0.031036, 0.02, 0.00007], abs=5e-7
    )
    assert model.coefficients(A) == pytest.approx(
        [0.069999, 0.144398, 0.069905, 0.006049, 0.027562, 0.047257, 0.02, 0.00448], abs=5e-7
    )
    model.learn(worked_sample())

    assert model.coefficients(B) == pytest.approx(
        [0.03125, 0.1053, 0.020567, 0.000189, 0.020236, 0.03206, 0.02, 0.00014], abs=5e-7
    )
    assert model.coefficients(A) == pytest.approx(
        [0.031746, 0.107391, 0.020792, 0.000264, 0.02033, 0.032878, 0.02, 0.000196], abs=5e-7
    )


def test_coefficients_never_turn_negative():
    world, model = LinearWorld(("fast", "slow"), noise=0.5), EnginePredictor()
    for sample in world.samples(800):
        model.learn(sample)
        for endpoint in world.endpoints:
            assert (model.coefficients(endpoint) >= 0).all()


def test_a_longer_queue_never_predicts_a_shorter_wait():
    world, model = LinearWorld(("fast", "slow"), noise=0.5), EnginePredictor()
    for sample in world.samples(300):
        model.learn(sample)
    features = world.candidates().features
    before = model.predict(features, world.endpoints).ttft_s
    features.values[:, 1:8] *= 2

    assert (model.predict(features, world.endpoints).ttft_s >= before).all()


def test_an_unknown_type_starts_from_the_fleet():
    world, model = LinearWorld(("fast",) * 3), EnginePredictor()
    for sample in world.samples(1500):
        model.learn(sample)
    stranger = Endpoint("10.9.9.9:80", "unheard_of")

    truth = np.array(COEFFICIENTS["fast"])
    features = world.candidates().features
    got = model.predict(features, (stranger,) * 3).ttft_s
    assert got == pytest.approx((features.engine @ truth).tolist(), rel=0.25)
    assert model.coefficients(stranger) != pytest.approx(PRIOR, rel=0.25)


def test_endpoints_with_few_samples_follow_their_type():
    world, model = LinearWorld(("fast",) * 3), EnginePredictor()
    model.learn(next(world.samples(1, among=[0])))
    alone = model.coefficients(world.endpoints[0])
    for sample in world.samples(600, among=[1, 2]):
        model.learn(sample)

    assert model.coefficients(world.endpoints[0]) != pytest.approx(alone, rel=0.2)
    assert world.error_ratio(model, among=[0]) < 0.2


def test_an_address_that_comes_back_as_another_type_starts_as_that_type():
    world, model = LinearWorld(("fast", "slow")), EnginePredictor()
    for sample in world.samples(600):
        model.learn(sample)
    address = world.endpoints[0].address
    reborn = Endpoint(address, "slow")
    sample = next(world.samples(1, among=[1]))
    model.learn(TrainingSample(address, "slow", sample.features, sample.ttft_s, 0.0, sample.ttft_s))

    assert model.coefficients(reborn) == pytest.approx(
        model.coefficients(world.endpoints[1]), rel=0.3, abs=0.03
    )
