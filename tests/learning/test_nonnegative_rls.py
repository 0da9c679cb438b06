import numpy as np
import pytest
from river import checks

from lodestar_extproc.learning.nonnegative_rls import NonNegativeRLS

RIVER_CHECKS = {check.__name__: check for check in checks.yield_checks(NonNegativeRLS())}


@pytest.mark.parametrize("name", RIVER_CHECKS)
def test_is_a_river_regressor(name):
    RIVER_CHECKS[name](NonNegativeRLS())


def taught(law, n=400, **parameters):
    model, rng = NonNegativeRLS(**parameters), np.random.default_rng(0)
    for _ in range(n):
        x = {"a": rng.uniform(0, 3), "b": rng.uniform(0, 1), "one": 1.0}
        model.learn_one(x, law(x))
    return model


def test_finds_the_coefficients_of_a_sum_of_costs():
    model = taught(lambda x: 0.2 * x["a"] + 0.05 * x["b"] + 0.03)

    assert model.coefficients == pytest.approx({"a": 0.2, "b": 0.05, "one": 0.03}, abs=1e-2)


def test_more_of_a_feature_never_lowers_the_prediction():
    model = taught(lambda x: 1.0 + 0.2 * x["a"] - 0.5 * x["b"])

    assert min(model.coefficients.values()) >= 0
    assert model.coefficients["b"] == 0


def test_forgets_an_old_law():
    model = taught(lambda x: 0.2 * x["a"], forgetting=0.98)
    rng = np.random.default_rng(1)
    for _ in range(300):
        x = {"a": rng.uniform(0, 3), "b": rng.uniform(0, 1), "one": 1.0}
        model.learn_one(x, 0.6 * x["a"])

    assert model.coefficients["a"] == pytest.approx(0.6, abs=0.02)


def test_prior_stands_until_samples_outweigh_it():
    model = NonNegativeRLS(prior={"a": 0.5}, prior_scale=0.1)

    assert model.predict_one({"a": 2.0}) == pytest.approx(1.0)
    model.learn_one({"a": 1.0}, 0.6)
    assert 0.5 < model.coefficients["a"] < 0.51
    for _ in range(2000):
        model.learn_one({"a": 1.0}, 0.6)
    assert model.coefficients["a"] == pytest.approx(0.6, abs=0.005)


def test_a_sample_of_weight_two_counts_like_two():
    once, twice = (NonNegativeRLS(forgetting=1.0) for _ in range(2))
    once.learn_one({"a": 1.0}, 3.0, w=2.0)
    for _ in range(2):
        twice.learn_one({"a": 1.0}, 3.0)

    assert once.coefficients == pytest.approx(twice.coefficients)
