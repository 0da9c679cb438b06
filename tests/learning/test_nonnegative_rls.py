import numpy as np
import pytest
from river import checks

from lodestar_extproc.learning.engine_predictor import PRIOR
from lodestar_extproc.learning.nonnegative_rls import NonNegativeRLS


def shrunk():
    return NonNegativeRLS(shrink_to=NonNegativeRLS(forgetting=0.9995, prior={"a": 0.5}))


NEW_REGRESSOR = {"alone": NonNegativeRLS, "shrunk": shrunk}
RIVER_CHECKS = {check.__name__: check for check in checks.yield_checks(NonNegativeRLS())}


@pytest.mark.parametrize("name", RIVER_CHECKS)
@pytest.mark.parametrize("kind", NEW_REGRESSOR)
def test_is_a_river_regressor(kind, name):
    RIVER_CHECKS[name](NEW_REGRESSOR[kind]())


def taught(law, n=400, **parameters):
    regressor, rng = NonNegativeRLS(**parameters), np.random.default_rng(0)
    for _ in range(n):
        x = {"a": rng.uniform(0, 3), "b": rng.uniform(0, 1), "one": 1.0}
        regressor.learn_one(x, law(x))
    return regressor


def test_finds_the_coefficients_of_a_sum_of_costs():
    regressor = taught(lambda x: 0.2 * x["a"] + 0.05 * x["b"] + 0.03)

    assert regressor.coefficients == pytest.approx({"a": 0.2, "b": 0.05, "one": 0.03}, abs=1e-2)


def test_more_of_a_feature_never_lowers_the_prediction():
    regressor = taught(lambda x: 1.0 + 0.2 * x["a"] - 0.5 * x["b"])

    assert min(regressor.coefficients.values()) >= 0
    assert regressor.coefficients["b"] == 0


def test_forgets_an_old_law():
    regressor = taught(lambda x: 0.2 * x["a"], forgetting=0.98)
    rng = np.random.default_rng(1)
    for _ in range(300):
        x = {"a": rng.uniform(0, 3), "b": rng.uniform(0, 1), "one": 1.0}
        regressor.learn_one(x, 0.6 * x["a"])

    assert regressor.coefficients["a"] == pytest.approx(0.6, abs=0.02)


def test_prior_stands_until_samples_outweigh_it():
    regressor = NonNegativeRLS(prior={"a": 0.5}, prior_scale=0.1)

    assert regressor.predict_one({"a": 2.0}) == pytest.approx(1.0)
    regressor.learn_one({"a": 1.0}, 0.6)
    assert 0.5 < regressor.coefficients["a"] < 0.51
    for _ in range(2000):
        regressor.learn_one({"a": 1.0}, 0.6)
    assert regressor.coefficients["a"] == pytest.approx(0.6, abs=0.005)


def test_a_sample_of_weight_two_counts_like_two():
    once, twice = (NonNegativeRLS(forgetting=1.0) for _ in range(2))
    once.learn_one({"a": 1.0}, 3.0, w=2.0)
    for _ in range(2):
        twice.learn_one({"a": 1.0}, 3.0)

    assert once.coefficients == pytest.approx(twice.coefficients)


def test_features_stand_in_the_order_of_the_prior_and_new_ones_after_them():
    regressor = NonNegativeRLS(prior={"z": 0.5, "b": 0.25})
    regressor.learn_one({"c": 1.0, "b": 1.0, "a": 1.0}, 1.0)

    assert regressor.features == ("z", "b", "a", "c")
    assert regressor.gram.shape == (4, 4)


def test_each_coefficient_may_have_a_prior_scale_of_its_own():
    regressor = NonNegativeRLS(prior={"sure": 0.5, "open": 0.5}, prior_scale={"sure": 0.01})
    regressor.learn_one({"sure": 1.0, "open": 1.0}, 2.0)

    assert regressor.coefficients["sure"] == pytest.approx(0.5, abs=0.01)
    assert regressor.coefficients["open"] > 0.6


class TestShrinking:
    def test_it_starts_where_what_it_shrinks_to_stands(self):
        fleet = taught(lambda x: 0.2 * x["a"] + 0.5)
        own = NonNegativeRLS(shrink_to=fleet)

        assert own.coefficients == fleet.coefficients
        assert own.predict_one({"a": 2.0, "unheard_of": 1.0}) == pytest.approx(
            2 * fleet.coefficients["a"]
        )

    def test_few_samples_move_it_a_little_and_many_all_the_way(self):
        fleet = NonNegativeRLS(prior={"a": 0.2}, prior_scale=0.01)
        own = NonNegativeRLS(shrink_to=fleet, shrinkage_samples=5.0, forgetting=1.0)
        for _ in range(5):
            own.learn_one({"a": 1.0}, 0.6)
        assert own.coefficients["a"] == pytest.approx(0.4, abs=1e-3)
        for _ in range(5000):
            own.learn_one({"a": 1.0}, 0.6)

        assert own.coefficients["a"] == pytest.approx(0.6, abs=1e-3)
        assert fleet.coefficients["a"] == pytest.approx(0.2)

    def test_it_follows_when_it_is_solved_again(self):
        fleet = NonNegativeRLS(prior={"a": 0.2}, prior_scale=10.0)
        own = NonNegativeRLS(shrink_to=fleet)
        for _ in range(1000):
            fleet.learn_one({"a": 1.0}, 0.6)
        own.solve()

        assert own.coefficients["a"] == pytest.approx(fleet.coefficients["a"])

    def test_a_feature_that_is_new_to_one_has_the_same_place_in_both(self):
        fleet = NonNegativeRLS(prior={"b": 0.1})
        one, other = (NonNegativeRLS(shrink_to=fleet) for _ in range(2))
        one.learn_one({"c": 1.0}, 1.0)
        other.learn_one({"a": 1.0, "c": 1.0}, 1.0)
        one.learn_one({"b": 1.0}, 1.0)

        assert one.features == other.features == fleet.features == ("b", "c", "a")


class TestState:
    def test_it_brings_everything_back(self):
        regressor = taught(
            lambda x: 0.2 * x["a"] + 0.5, prior=dict.fromkeys("ab", 0.0) | {"one": 1.0}
        )
        again = NonNegativeRLS(prior=regressor.prior)
        again.restore(regressor.state())
        for each in (regressor, again):
            each.learn_one({"a": 1.0, "one": 1.0}, 0.9)

        assert again.coefficients == regressor.coefficients

    @pytest.mark.parametrize("key", ["gram", "moment", "coefficients", "n_samples"])
    @pytest.mark.parametrize("value", [None, "x", [], [[1.0]], 1e999, [None] * 8, [1e999] * 8])
    def test_what_is_no_state_is_refused_and_changes_nothing(self, key, value):
        regressor = NonNegativeRLS(prior=dict(enumerate(PRIOR)))
        before = regressor.state()
        with pytest.raises((KeyError, TypeError, ValueError)):
            regressor.restore(before | {key: value})

        assert regressor.state() == before

    def test_a_negative_coefficient_is_refused(self):
        regressor = NonNegativeRLS(prior={"a": 0.5})
        with pytest.raises(ValueError, match="no samples"):
            regressor.restore(regressor.state() | {"coefficients": [-0.1]})
