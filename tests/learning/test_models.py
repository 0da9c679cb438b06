"""Every model of TTFT passes the one list of checks."""

import random

import pytest

import model_checks
from learning_worlds import LinearWorld
from lodestar_extproc.config.settings import MODELS
from lodestar_extproc.learning.auto_model import AutoModel
from lodestar_extproc.learning.background import TrainingInPlace
from lodestar_extproc.learning.engine_model import EngineModel
from lodestar_extproc.learning.learner import Learner
from lodestar_extproc.learning.residual_model import ResidualModel
from lodestar_extproc.learning.river_models import BayesianLinearModel
from lodestar_extproc.learning.sklearn_models import MLPModel
from lodestar_extproc.learning.trust import Trust


def a_quick_mlp():
    return MLPModel(random.Random(0), retrain_samples=200, start_executor=TrainingInPlace)


def a_residual():
    return ResidualModel(random.Random(0), batch_samples=100, start_executor=TrainingInPlace)


def an_auto():
    return AutoModel([EngineModel, BayesianLinearModel])


NEW_MODEL = {
    "engine": EngineModel,
    "bayesian_linear": BayesianLinearModel,
    "residual": a_residual,
    "mlp": a_quick_mlp,
    "auto": an_auto,
}

NOT_CLAIMED = {
    ("mlp", "recovers_from_adversarial_labels"): "squared error: one absurd label outweighs many",
    ("mlp", "a_discounted_endpoint_learns_its_new_speed"): "nothing is kept by endpoint",
}


@pytest.mark.parametrize("check", model_checks.CHECKS)
@pytest.mark.parametrize("model", NEW_MODEL)
def test_model(model, check):
    if (model, check) in NOT_CLAIMED:
        pytest.skip(NOT_CLAIMED[model, check])
    model_checks.CHECKS[check](NEW_MODEL[model])


@pytest.mark.parametrize("model", NEW_MODEL)
def test_four_fifths_of_what_comes_lies_in_the_interval(model):
    learner = Learner(NEW_MODEL[model](), Trust())
    LinearWorld(("fast", "slow", "slow")).teach(learner, 900)

    assert learner.status().coverage_ratio == pytest.approx(0.8, abs=0.1)


def test_every_model_that_may_be_configured_is_checked():
    assert set(NEW_MODEL) == set(MODELS)
    assert all(new_model().name == name for name, new_model in NEW_MODEL.items())
