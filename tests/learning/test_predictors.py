"""Every predictor of TTFT passes the one list of checks."""

import random

import pytest

import predictor_checks
from builders import live_settings
from learning_worlds import LinearWorld
from lodestar_extproc.config.settings import PREDICTORS
from lodestar_extproc.learning.auto_predictor import AutoPredictor
from lodestar_extproc.learning.background import TrainingInPlace
from lodestar_extproc.learning.bayesian_linear import BayesianLinearPredictor
from lodestar_extproc.learning.engine_predictor import EnginePredictor
from lodestar_extproc.learning.learner import Learner
from lodestar_extproc.learning.mlp import MLPPredictor
from lodestar_extproc.learning.residual_predictor import ResidualPredictor
from lodestar_extproc.learning.trust import Trust


def a_quick_mlp():
    return MLPPredictor(
        random.Random(0), live_settings(mlp_retrain_samples=200), start_executor=TrainingInPlace
    )


def a_residual():
    return ResidualPredictor(random.Random(0), batch_samples=100, start_executor=TrainingInPlace)


def an_auto():
    return AutoPredictor([EnginePredictor, BayesianLinearPredictor])


NEW_PREDICTOR = {
    "engine": EnginePredictor,
    "bayesian_linear": BayesianLinearPredictor,
    "residual": a_residual,
    "mlp": a_quick_mlp,
    "auto": an_auto,
}

NOT_CLAIMED = {
    ("mlp", "recovers_from_adversarial_labels"): "squared error: one absurd label outweighs many",
    ("mlp", "a_discounted_endpoint_learns_its_new_speed"): "nothing is kept by endpoint",
}


@pytest.mark.parametrize("check", predictor_checks.CHECKS)
@pytest.mark.parametrize("predictor", NEW_PREDICTOR)
def test_predictor(predictor, check):
    if (predictor, check) in NOT_CLAIMED:
        pytest.skip(NOT_CLAIMED[predictor, check])
    predictor_checks.CHECKS[check](NEW_PREDICTOR[predictor])


@pytest.mark.parametrize("predictor", NEW_PREDICTOR)
def test_four_fifths_of_what_comes_lies_in_the_interval(predictor):
    learner = Learner(NEW_PREDICTOR[predictor](), Trust(live_settings()))
    LinearWorld(("fast", "slow", "slow")).teach(learner, 900)

    assert learner.status().coverage_ratio == pytest.approx(0.8, abs=0.1)


def test_every_predictor_that_may_be_configured_is_checked():
    assert set(NEW_PREDICTOR) == set(PREDICTORS)
    assert all(new_predictor().name == name for name, new_predictor in NEW_PREDICTOR.items())
