"""When an endpoint is said to have changed."""

import random

from lodestar_extproc.learning.drift_detector import DriftDetector


def drifts(detector, address, factor, n, rng):
    """How many of *n* updates detect one, while observations are *factor* times as predicted."""
    observed = [factor * rng.lognormvariate(0.0, 0.15) for _ in range(n)]
    return sum(detector.update(address, 1.0, observed_s) for observed_s in observed)


def test_noise_is_no_drift():
    assert drifts(DriftDetector(), "a", 1.0, 1000, random.Random(0)) == 0


def test_an_engine_that_slows_down_is_noticed_once():
    detector, rng = DriftDetector(), random.Random(0)
    drifts(detector, "a", 1.0, 200, rng)

    assert drifts(detector, "a", 3.0, 60, rng) == 1
    assert detector.counts == {"a": 1}


def test_a_predictor_that_becomes_right_is_no_drift_of_the_engine():
    detector, rng = DriftDetector(), random.Random(0)
    drifts(detector, "a", 1.5, 60, rng)

    assert drifts(detector, "a", 1.0, 300, rng) == 0


def test_endpoints_are_watched_apart_and_forgotten():
    detector, rng = DriftDetector(), random.Random(0)
    for address, factor in (("a", 1.0), ("b", 3.0)):
        drifts(detector, address, factor, 100, rng)
    assert detector.counts == {}
    drifts(detector, "a", 3.0, 60, rng)
    detector.forget("a")

    assert detector.counts == {}
