"""What every predictor of TTFT must pass: a list of checks, each given a way to make a new predictor."""

import itertools
import random
from dataclasses import replace

import numpy as np
import orjson
import pytest

from damaged_states import damaged
from learning_worlds import LinearWorld, with_endpoints
from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.features import N_FEATURES
from lodestar_extproc.learning.labels import MAX_LABEL_S, checked

ENOUGH = 400
REFUSED = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError)


def taught(new_predictor, world, n=ENOUGH):
    predictor = new_predictor()
    for sample in world.samples(n):
        predictor.learn(sample)
    return predictor


def learn(predictor, sample):
    """As a learner does: only what is a label."""
    label = checked(sample)
    if label is not None:
        predictor.learn(label)


def fields(estimate):
    return np.array(
        [estimate.ttft_s, estimate.service_s, estimate.backlog_s, estimate.s_per_ktoken]
    )


def assert_sound(estimate, n):
    values = fields(estimate)
    assert values.shape == (4, n)
    assert np.isfinite(values).all()
    assert (estimate.ttft_s > 0).all()
    assert (values[1:3] >= 0).all()
    assert (estimate.s_per_ktoken > 0).all()


def check_untrained_predictions_are_sound(new_predictor):
    world, predictor = LinearWorld(), new_predictor()

    assert not predictor.is_trained
    assert_sound(predictor.predict(world.candidates().features, world.endpoints), 4)
    assert (predictor.prefill_s_per_ktoken(world.endpoints) > 0).all()


def check_predictions_are_sound_with_every_load(new_predictor):
    world = LinearWorld(("fast", "slow", "slow"))
    predictor = taught(new_predictor, world)

    assert predictor.is_trained
    for _ in range(100):
        assert_sound(predictor.predict(world.candidates().features, world.endpoints), 3)


def check_learns_a_linear_world(new_predictor):
    world = LinearWorld(("slow",) * 3, noise=0.15)
    predictor = taught(new_predictor, world)

    assert world.error_ratio(predictor) < 0.12


def check_tells_fast_from_slow(new_predictor):
    world = LinearWorld(("fast", "slow", "fast", "slow"), noise=0.15)
    predictor = taught(new_predictor, world, 2 * ENOUGH)

    assert world.error_ratio(predictor, among=[0, 2]) < 0.25
    assert world.error_ratio(predictor, among=[1, 3]) < 0.25


def check_learns_one_repeated_sample(new_predictor):
    world, predictor = LinearWorld(), new_predictor()
    sample = replace(next(world.samples(1)), ttft_s=0.4)
    for _ in range(ENOUGH):
        predictor.learn(sample)

    assert predictor.ttft_s(sample) == pytest.approx(0.4, rel=0.1)


def check_ignores_labels_that_are_no_time(new_predictor):
    world = LinearWorld()
    predictor = taught(new_predictor, world)
    features = world.candidates().features
    before = fields(predictor.predict(features, world.endpoints))
    for label in (np.nan, np.inf, -np.inf, -1.0, 0.0):
        for sample in world.samples(50):
            learn(predictor, replace(sample, ttft_s=label))

    assert (fields(predictor.predict(features, world.endpoints)) == before).all()


def check_ignores_rows_with_broken_features(new_predictor):
    world = LinearWorld()
    predictor = taught(new_predictor, world)
    features = world.candidates().features
    before = fields(predictor.predict(features, world.endpoints))
    for column, value in itertools.product(range(N_FEATURES), (np.nan, np.inf, 1e300)):
        sample = next(world.samples(1))
        row = sample.features.copy()
        row[column] = value
        learn(predictor, replace(sample, features=row))

    assert (fields(predictor.predict(features, world.endpoints)) == before).all()


def check_survives_broken_predictions_in_samples(new_predictor):
    world, predictor = LinearWorld(), new_predictor()
    broken = itertools.cycle((np.nan, np.inf, -1.0, 0.0, 1e-300, 1e300))
    for sample, predicted in zip(world.samples(ENOUGH), broken, strict=False):
        predictor.learn(replace(sample, predicted_ttft_s=predicted))

    assert_sound(predictor.predict(world.candidates().features, world.endpoints), 4)


def check_adversarial_labels_stay_bounded(new_predictor):
    world, predictor, rng = LinearWorld(), new_predictor(), random.Random(0)
    for sample in world.samples(ENOUGH):
        learn(predictor, replace(sample, ttft_s=rng.choice([1e-300, 1e-6, 1e12, sample.ttft_s])))
    for _ in range(50):
        estimate = predictor.predict(world.candidates().features, world.endpoints)
        assert_sound(estimate, 4)
        assert (estimate.ttft_s <= 10 * MAX_LABEL_S).all()


def check_recovers_from_adversarial_labels(new_predictor):
    world, predictor, rng = LinearWorld(), new_predictor(), random.Random(0)
    for sample in world.samples(300):
        learn(predictor, replace(sample, ttft_s=rng.uniform(0.001, 100.0)))
    for sample in world.samples(1500):
        predictor.learn(sample)

    assert world.error_ratio(predictor) < 0.35


def check_predicting_changes_nothing(new_predictor):
    world = LinearWorld(("fast", "slow"))
    predictor = taught(new_predictor, world)
    candidates = world.candidates()
    strangers = (Endpoint("10.9.9.9:80", "other"), Endpoint("10.9.9.8:80", "slow"))
    before = orjson.dumps(predictor.state())
    first = fields(predictor.predict(candidates.features, world.endpoints))
    predictor.predict(candidates.features, strangers)
    predictor.prefill_s_per_ktoken(strangers)
    predictor.ttft_s(next(world.samples(1)))

    assert (fields(predictor.predict(candidates.features, world.endpoints)) == first).all()
    assert orjson.dumps(predictor.state()) == before


def check_order_of_endpoints_does_not_matter(new_predictor):
    world = LinearWorld(("fast", "slow", "fast", "slow"))
    predictor = taught(new_predictor, world)
    candidates, order = world.candidates(), [2, 0, 3, 1]
    turned = with_endpoints(candidates, order)
    expected = fields(predictor.predict(candidates.features, candidates.snapshot.endpoints))
    got = fields(predictor.predict(turned.features, turned.snapshot.endpoints))

    assert got == pytest.approx(expected[:, order], rel=1e-4)


def check_row_and_matrix_agree(new_predictor):
    world = LinearWorld(("fast", "slow"))
    predictor = taught(new_predictor, world)
    candidates = world.candidates()
    matrix = predictor.predict(candidates.features, world.endpoints).ttft_s
    rows = [predictor.ttft_s(world.observe(candidates, i)) for i in range(2)]

    assert rows == pytest.approx(matrix.tolist(), rel=1e-4)


def check_a_new_endpoint_of_a_known_type_starts_sensible(new_predictor):
    world = LinearWorld(("slow",) * 3 + ("fast",))
    predictor = new_predictor()
    for sample in world.samples(ENOUGH, among=[0, 1, 3]):
        predictor.learn(sample)

    assert world.error_ratio(predictor, among=[2]) < 0.25


def check_endpoints_come_and_go(new_predictor):
    world, predictor = LinearWorld(("fast", "slow", "slow")), new_predictor()
    for k, sample in enumerate(world.samples(ENOUGH)):
        predictor.learn(replace(sample, address=f"10.1.{k // 10 % 256}.1:80"))
        predictor.forget(f"10.1.{(k // 10 - 3) % 256}.1:80")
    predictor.forget("10.0.0.99:80")

    assert_sound(predictor.predict(world.candidates().features, world.endpoints), 3)
    assert len(predictor.state().get("endpoints", {})) <= 4


def check_forgetting_an_endpoint_drops_what_is_its_own(new_predictor):
    world = LinearWorld(("slow", "slow"))
    predictor = taught(new_predictor, world)
    gone, stays = world.endpoints
    predictor.forget(gone.address)

    assert gone.address.encode() not in orjson.dumps(predictor.state())
    assert_sound(predictor.predict(world.candidates().features, (gone, stays)), 2)


def check_a_checkpoint_brings_back_equal_predictions(new_predictor):
    world = LinearWorld(("fast", "slow", "slow"))
    predictor, other = taught(new_predictor, world), new_predictor()
    other.restore(orjson.loads(orjson.dumps(predictor.state())))

    assert other.is_trained
    for _ in range(20):
        features = world.candidates().features
        expected = fields(predictor.predict(features, world.endpoints))
        assert (fields(other.predict(features, world.endpoints)) == expected).all()


def check_learning_goes_on_after_a_checkpoint(new_predictor):
    world, predictor, rest = LinearWorld(), new_predictor(), new_predictor()
    for sample in world.samples(60):
        predictor.learn(sample)
    rest.restore(orjson.loads(orjson.dumps(predictor.state())))
    for sample in world.samples(ENOUGH):
        rest.learn(sample)

    assert world.error_ratio(rest) < 0.12


def check_a_damaged_state_changes_nothing(new_predictor):
    world = LinearWorld()
    predictor = taught(new_predictor, world)
    features = world.candidates().features
    before = fields(predictor.predict(features, world.endpoints))
    state = predictor.state()
    for broken in ({}, [], {"x": state}, *({**state, key: 7} for key in state)):
        with pytest.raises(REFUSED):
            predictor.restore(broken)

    assert (fields(predictor.predict(features, world.endpoints)) == before).all()


def check_a_state_with_any_damage_is_refused_or_predicts(new_predictor):
    world = LinearWorld(("fast", "slow"))
    predictor = taught(new_predictor, world, 200)
    features, sample = world.candidates().features, next(world.samples(1))
    for state in damaged(orjson.loads(orjson.dumps(predictor.state())), (None, 0, "x", [], 1e308)):
        other = new_predictor()
        try:
            other.restore(state)
        except REFUSED:
            continue
        assert_sound(other.predict(features, world.endpoints), 2)
        other.learn(sample)
        assert orjson.dumps(other.state()), "what was taken over can be written again"


def check_state_is_plain_json_when_untrained(new_predictor):
    predictor, world = new_predictor(), LinearWorld()
    predictor.restore(orjson.loads(orjson.dumps(predictor.state())))

    assert not predictor.is_trained
    assert_sound(predictor.predict(world.candidates().features, world.endpoints), 4)


def check_a_discounted_endpoint_learns_its_new_speed(new_predictor):
    world = LinearWorld(("slow",) * 3)
    predictor = taught(new_predictor, world)
    changed = world.endpoints[1].address
    world.slow_down[changed] = 3.0
    predictor.discount(changed)
    for sample in world.samples(100, among=[1]):
        predictor.learn(sample)

    assert world.error_ratio(predictor, among=[1]) < 0.3


CHECKS = {name[6:]: check for name, check in list(globals().items()) if name[:6] == "check_"}
