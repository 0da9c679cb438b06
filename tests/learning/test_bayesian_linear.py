import random

import numpy as np
import pytest

from learning_worlds import LinearWorld
from lodestar_extproc.features import ENGINE_FEATURES, N_ENGINE
from lodestar_extproc.learning.bayesian_linear import BayesianLinearPredictor, _Regression
from lodestar_extproc.learning.engine_predictor import PRIOR


def test_coefficients_give_what_river_predicts():
    rng, regression = random.Random(0), _Regression(0.999)
    for _ in range(300):
        row = np.array([rng.random() for _ in range(N_ENGINE)])
        regression.learn(row, float(row.sum()))
    row = np.array([rng.random() for _ in range(N_ENGINE)])
    by_river = regression._river.predict_one(dict(zip(ENGINE_FEATURES, row, strict=True)))

    assert regression.coefficients() @ row == pytest.approx(by_river)


def test_untrained_it_predicts_near_the_prior_and_not_zero():
    assert _Regression(0.999).coefficients() == pytest.approx(np.array(PRIOR), rel=0.5)


def test_a_feature_that_is_never_excited_keeps_its_prior_for_ever():
    regression, row = _Regression(0.9), np.eye(N_ENGINE)[1]
    for _ in range(8000):  # 0.9 ** 8000 is no double any more
        regression.learn(row, 0.2)

    assert regression.coefficients()[1] == pytest.approx(0.2, abs=0.02)
    assert regression.coefficients()[6] == pytest.approx(PRIOR[6], abs=0.01)


def test_refuses_a_state_of_another_river():
    predictor = BayesianLinearPredictor()
    for sample in LinearWorld().samples(10):
        predictor.learn(sample)

    with pytest.raises(ValueError, match=r"River 0\.1"):
        predictor.restore(predictor.state() | {"river": "0.1"})
