import random

import pytest

from lodestar_extproc.config.settings import PREDICTORS
from lodestar_extproc.evaluation.clairvoyant import Oracle
from lodestar_extproc.evaluation.contenders import parse_contender
from lodestar_extproc.evaluation.fleets import find_fleet
from lodestar_extproc.simulator.machine import new_machine


def machines():
    return [new_machine(i, spec, i) for i, spec in enumerate(find_fleet("a30x8").specs)]


def test_the_papers_router_is_one_name():
    contender = parse_contender("lodestar_paper")
    settings = contender.settings

    assert contender.learns
    assert not contender.is_heuristic
    assert (settings.predictor, settings.fallback_policy) == ("mlp", "prefix_cache")
    assert settings.mlp_retrain_samples == 1000
    router = contender.router(machines(), Oracle(), seed=1)
    assert router.settings.policy == "lodestar_paper"
    assert router.learner.predictor.name == "mlp"


def test_its_settings_can_be_changed():
    contender = parse_contender("lodestar_paper:mlp_retrain_samples=500")

    assert contender.settings.mlp_retrain_samples == 500
    assert contender.settings.predictor == "mlp"


@pytest.mark.parametrize("model", PREDICTORS)
def test_every_model_can_compete(model):
    contender = parse_contender(f"learned:predictor={model}")
    router = contender.router(machines(), Oracle(), random.Random(0).getrandbits(8))

    assert router.learner.predictor.name == model
