import random

import orjson
import pytest

from builders import an_endpoint
from lodestar_extproc.learning.live_errors import (
    MIN_INTERVAL_SAMPLES,
    UNKNOWN_FACTORS,
    ErrorWindow,
    LiveErrors,
)

A, B = an_endpoint(1), an_endpoint(2)


def test_error_is_the_median_relative_to_what_was_observed():
    window = ErrorWindow(50, [(1.0, 2.0), (3.0, 2.0), (2.0, 2.0), (9.0, 2.0), (2.2, 2.0)])

    assert window.error_ratio == pytest.approx(0.5)
    assert ErrorWindow(50).error_ratio is None


def test_one_absurd_prediction_does_not_move_the_median():
    window = ErrorWindow(50, [(1.1, 1.0)] * 20 + [(1e9, 1.0)])

    assert window.error_ratio == pytest.approx(0.1)


def observed(errors, endpoint, n, bias=1.0, spread=0.3, seed=0):
    rng = random.Random(seed)
    for _ in range(n):
        errors.record(endpoint.address, 1.0, bias * rng.lognormvariate(0.0, spread))


def test_interval_is_wide_until_something_is_known():
    assert LiveErrors().interval([A, B]).tolist() == [list(UNKNOWN_FACTORS)] * 2


def test_interval_holds_four_fifths():
    errors = LiveErrors()
    observed(errors, A, 1000)

    assert errors.coverage_ratio == pytest.approx(0.8, abs=0.05)
    # ±1.28 standard deviations
    assert errors.interval([A])[0].tolist() == pytest.approx([0.68, 1.47], rel=0.15)


def test_an_endpoint_with_samples_of_its_own_has_its_own_interval():
    errors = LiveErrors()
    observed(errors, A, 100)
    observed(errors, B, MIN_INTERVAL_SAMPLES - 1, bias=3.0)
    assert errors.interval([B])[0].tolist() == list(errors.fleet.factors)
    observed(errors, B, 1, bias=3.0)

    low, high = errors.interval([A, B])[1]
    assert 1.5 < low < 3.0 < high


def test_the_trivial_predictor_says_the_median():
    errors = LiveErrors()
    for value in [1.0, 1.0, 4.0] * 40:
        errors.record(A.address, value, value)

    assert errors.fleet.error_ratio == 0
    assert errors.trivial.error_ratio == 0
    for value in [1.0, 4.0, 4.0] * 40:
        errors.record(A.address, value, value)
    assert errors.trivial.error_ratio > 0


def test_state_brings_windows_and_intervals_back():
    errors = LiveErrors()
    observed(errors, A, 100)
    observed(errors, B, 50, bias=2.0)
    again = LiveErrors.from_state(orjson.loads(orjson.dumps(errors.state())))

    assert again.interval([A, B]).tolist() == errors.interval([A, B]).tolist()
    assert again.fleet.error_ratio == errors.fleet.error_ratio
    assert again.trivial.error_ratio == errors.trivial.error_ratio
    assert again.of(B.address).error_ratio == errors.of(B.address).error_ratio


def test_an_endpoint_that_left_leaves_nothing():
    errors = LiveErrors()
    observed(errors, A, 100)
    observed(errors, B, 100, bias=3.0)
    errors.forget(B.address)

    assert B.address not in errors.state()["endpoints"]
    assert errors.of(B.address).error_ratio is None
    assert errors.interval([B])[0].tolist() == list(errors.fleet.factors)


def test_half_and_double_are_equally_wrong():
    for predicted_s in (0.5, 2.0):
        window = ErrorWindow(20)
        window.add(predicted_s, 1.0)

        assert window.error_ratio == 1.0
