"""The engine predictor against worked numbers, and how its levels lean on each other."""

from dataclasses import replace

import numpy as np
import pytest

from learning_worlds import COEFFICIENTS, LinearWorld, worked_decision
from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.features import ENGINE_FEATURES, N_ENGINE
from lodestar_extproc.learning.engine_predictor import (
    ACCELERATOR_SWEEPS,
    ENDPOINT_FORGETTING,
    ENDPOINT_SWEEPS,
    FLEET_SWEEPS,
    MIN_PRECISE_S,
    PRIOR,
    PRIOR_SCALE,
    SHARED_FORGETTING,
    SHRINKAGE_SAMPLES,
    WEIGHT_SCALE,
    EnginePredictor,
)
from lodestar_extproc.learning.labels import precision
from lodestar_extproc.learning.nonnegative_rls import NonNegativeRLS
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


def test_two_worked_samples_move_accelerator_and_endpoint():
    predictor = EnginePredictor()
    predictor.learn(worked_sample())

    # An endpoint without samples has its accelerator's coefficients.
    assert predictor.coefficients(B) == pytest.approx(
        [0.030629, 0.102665, 0.020285, 0.000095, 0.020119, 0.031036, 0.02, 0.00007], abs=5e-7
    )
    assert predictor.coefficients(A) == pytest.approx(
        [0.069999, 0.144398, 0.069905, 0.006049, 0.027562, 0.047257, 0.02, 0.00448], abs=5e-7
    )
    predictor.learn(worked_sample())

    assert predictor.coefficients(B) == pytest.approx(
        [0.03125, 0.1053, 0.020567, 0.000189, 0.020236, 0.03206, 0.02, 0.00014], abs=5e-7
    )
    assert predictor.coefficients(A) == pytest.approx(
        [0.031746, 0.107391, 0.020792, 0.000264, 0.02033, 0.032878, 0.02, 0.000196], abs=5e-7
    )


class TestTheRegressorsThatServe:
    """They are River's: what `learn_one` teaches by name is what the served path learns by place."""

    def test_are_all_of_the_class_that_rivers_checks_pass(self):
        world, predictor = LinearWorld(("fast", "slow")), EnginePredictor()
        for sample in world.samples(50):
            predictor.learn(sample)
        served = [predictor.fleet, *predictor.accelerators.values(), *predictor.endpoints.values()]

        assert len(served) == 5
        assert {type(regressor) for regressor in served} == {NonNegativeRLS}
        assert {regressor.features for regressor in served} == {ENGINE_FEATURES}

    def test_learn_the_same_by_name_as_by_place(self):
        world, predictor = LinearWorld(("fast",), noise=0.3), EnginePredictor()
        by_name = regressors_of_one_endpoint()
        for sample in world.samples(300):
            predicted_s = predictor.ttft_s(sample)
            predictor.learn(replace(sample, predicted_ttft_s=predicted_s))
            weight = precision(max(predicted_s, MIN_PRECISE_S), sample.ttft_s, WEIGHT_SCALE)
            for regressor in by_name:
                regressor.learn_one(engine_features(sample), sample.ttft_s, w=weight)
        address = world.endpoints[0].address
        by_place = (
            predictor.fleet,
            predictor.accelerators["fast"],
            predictor.endpoints[address],
        )

        for named, placed in zip(by_name, by_place, strict=True):
            assert named.coefficients == pytest.approx(placed.coefficients, rel=1e-9)
            assert named.state() == placed.state()
        sample = next(world.samples(1))
        assert by_name[2].predict_one(engine_features(sample)) == pytest.approx(
            predictor.ttft_s(sample)
        )

    def test_predict_one_is_what_is_predicted_for_every_endpoint(self):
        world, predictor = LinearWorld(("fast", "slow", "slow")), EnginePredictor()
        for sample in world.samples(200):
            predictor.learn(sample)
        candidates = world.candidates()
        rows = [dict(zip(ENGINE_FEATURES, row, strict=True)) for row in candidates.features.engine]
        expected = [
            predictor.endpoints[endpoint.address].predict_one(row)
            for endpoint, row in zip(world.endpoints, rows, strict=True)
        ]

        estimate = predictor.predict(candidates.features, world.endpoints)
        assert estimate.ttft_s == pytest.approx(expected)

    def test_go_on_with_what_is_taught_to_them_by_name(self):
        predictor = EnginePredictor()
        predictor.learn(worked_sample())
        before = predictor.endpoints["a:1"].theta.copy()
        predictor.endpoints["a:1"].learn_one(engine_features(worked_sample()), 3.0)
        predictor.learn(worked_sample())

        assert predictor.endpoints["a:1"].n_samples == pytest.approx(3.0, abs=0.01)
        assert (predictor.coefficients(A) == predictor.endpoints["a:1"].theta).all()
        assert predictor.coefficients(A) != pytest.approx(before)


def regressors_of_one_endpoint():
    """The fleet's, the accelerator's and the endpoint's, as the first sample finds them."""
    prior = dict(zip(ENGINE_FEATURES, PRIOR, strict=True))
    scale = dict(zip(ENGINE_FEATURES, PRIOR_SCALE, strict=True))
    fleet = NonNegativeRLS(SHARED_FORGETTING, prior, scale, FLEET_SWEEPS)
    accelerator = NonNegativeRLS(SHARED_FORGETTING, prior, scale, ACCELERATOR_SWEEPS)
    own = NonNegativeRLS(
        ENDPOINT_FORGETTING,
        sweeps=ENDPOINT_SWEEPS,
        shrink_to=accelerator,
        shrinkage_samples=SHRINKAGE_SAMPLES,
    )
    return fleet, accelerator, own


def engine_features(sample):
    return dict(zip(ENGINE_FEATURES, sample.features[:N_ENGINE].tolist(), strict=True))


def test_coefficients_never_turn_negative():
    world, predictor = LinearWorld(("fast", "slow"), noise=0.5), EnginePredictor()
    for sample in world.samples(800):
        predictor.learn(sample)
        for endpoint in world.endpoints:
            assert (predictor.coefficients(endpoint) >= 0).all()


def test_a_longer_queue_never_predicts_a_shorter_wait():
    world, predictor = LinearWorld(("fast", "slow"), noise=0.5), EnginePredictor()
    for sample in world.samples(300):
        predictor.learn(sample)
    features = world.candidates().features
    before = predictor.predict(features, world.endpoints).ttft_s
    features.values[:, 1:8] *= 2

    assert (predictor.predict(features, world.endpoints).ttft_s >= before).all()


def test_an_unknown_accelerator_starts_from_the_fleet():
    world, predictor = LinearWorld(("fast",) * 3), EnginePredictor()
    for sample in world.samples(1500):
        predictor.learn(sample)
    stranger = Endpoint("10.9.9.9:80", "unheard_of")

    truth = np.array(COEFFICIENTS["fast"])
    features = world.candidates().features
    got = predictor.predict(features, (stranger,) * 3).ttft_s
    assert got == pytest.approx((features.engine @ truth).tolist(), rel=0.25)
    assert predictor.coefficients(stranger) != pytest.approx(PRIOR, rel=0.25)


def test_endpoints_with_few_samples_follow_their_accelerator():
    world, predictor = LinearWorld(("fast",) * 3), EnginePredictor()
    predictor.learn(next(world.samples(1, among=[0])))
    alone = predictor.coefficients(world.endpoints[0])
    for sample in world.samples(600, among=[1, 2]):
        predictor.learn(sample)

    assert predictor.coefficients(world.endpoints[0]) != pytest.approx(alone, rel=0.2)
    assert world.error_ratio(predictor, among=[0]) < 0.2


def test_an_address_that_comes_back_on_another_accelerator_starts_as_that():
    world, predictor = LinearWorld(("fast", "slow")), EnginePredictor()
    for sample in world.samples(600):
        predictor.learn(sample)
    address = world.endpoints[0].address
    reborn = Endpoint(address, "slow")
    sample = next(world.samples(1, among=[1]))
    predictor.learn(
        TrainingSample(address, "slow", sample.features, sample.ttft_s, 0.0, sample.ttft_s)
    )

    assert predictor.coefficients(reborn) == pytest.approx(
        predictor.coefficients(world.endpoints[1]), rel=0.3, abs=0.03
    )
