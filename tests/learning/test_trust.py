from dataclasses import replace

import numpy as np
import pytest

from learning_worlds import LinearWorld
from lodestar_extproc.decision import Reason
from lodestar_extproc.learning.live_errors import LiveErrors
from lodestar_extproc.learning.trust import Trust

WORLD = LinearWorld(("slow",) * 3)
FIRST, SECOND = (e.address for e in WORLD.endpoints[:2])


def told(trust, errors, address, n, predicted_s, observed_s=1.0):
    for i in range(n):
        # The observations vary, so that the trivial predictor errs too.
        factor = (0.3, 1.0, 3.0)[i % 3]
        errors.record(address, predicted_s * factor, observed_s * factor)
        trust.update(address, errors)


def verdict(trust, n_samples=1000, features=None):
    features = WORLD.candidates().features if features is None else features
    return trust.judge(features, WORLD.endpoints, n_samples, 2.0)


def a_trust_that_saw_the_world(**limits):
    trust = Trust(**limits)
    for sample in WORLD.samples(300):
        trust.learned(sample)
    return trust


def test_burn_in_lasts_as_long_as_it_says():
    trust = a_trust_that_saw_the_world(burn_in_samples=50)

    assert verdict(trust, 49).reason is Reason.BURN_IN
    assert verdict(trust, 50).reason is Reason.MODEL


def test_a_model_without_a_sample_is_never_trusted():
    assert verdict(Trust(burn_in_samples=0), 0).on(0) is Reason.BURN_IN


def test_trust_is_lost_above_the_limit_and_regained_only_well_below():
    trust, errors = a_trust_that_saw_the_world(max_error_ratio=0.5), LiveErrors()
    told(trust, errors, FIRST, 60, 1.45)
    assert verdict(trust).reason is Reason.MODEL
    told(trust, errors, FIRST, 60, 1.6)
    assert verdict(trust).reason is Reason.UNTRUSTED
    told(trust, errors, FIRST, 60, 1.45)
    assert verdict(trust).reason is Reason.UNTRUSTED
    told(trust, errors, FIRST, 60, 1.2)
    assert verdict(trust).reason is Reason.MODEL


def test_a_model_no_better_than_the_median_is_not_trusted():
    trust, errors = a_trust_that_saw_the_world(max_error_ratio=0.5), LiveErrors()
    for _ in range(200):
        errors.record(FIRST, 1.4, 1.0)
        trust.update(FIRST, errors)

    assert errors.trivial.error_ratio == 0
    assert verdict(trust).reason is Reason.UNTRUSTED


def test_an_error_that_does_no_harm_is_trusted_even_if_the_median_is_better():
    trust, errors = a_trust_that_saw_the_world(max_error_ratio=0.5), LiveErrors()
    for _ in range(200):
        errors.record(FIRST, 1.1, 1.0)
        trust.update(FIRST, errors)

    assert verdict(trust).reason is Reason.MODEL


def test_one_endpoint_is_doubted_alone():
    trust, errors = a_trust_that_saw_the_world(), LiveErrors()
    for _ in range(20):
        told(trust, errors, FIRST, 10, 1.05)
        told(trust, errors, SECOND, 3, 3.0)
    judged = verdict(trust)

    assert judged.reason is Reason.MODEL
    assert judged.doubtful.tolist() == [False, True, False]
    assert judged.on(0) is Reason.MODEL
    assert judged.on(1) is Reason.UNTRUSTED
    trust.forget(SECOND)
    assert not verdict(trust).doubtful.any()


def test_every_candidate_is_judged_by_its_own_range():
    trust, features = a_trust_that_saw_the_world(), WORLD.candidates().features
    values = features.values.copy()
    values[1, 1] = 1e6
    judged = verdict(trust, features=replace(features, values=values))

    assert judged.outside.tolist() == [False, True, False]
    assert judged.on(1) is Reason.OUT_OF_RANGE


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_broken_feature_is_out_of_range(broken):
    trust, features = a_trust_that_saw_the_world(), WORLD.candidates().features
    values = features.values.copy()
    values[2, 4] = broken

    assert verdict(trust, features=replace(features, values=values)).on(2) is Reason.OUT_OF_RANGE


def test_a_feature_that_never_varied_may_begin_to():
    trust = Trust()
    for sample in WORLD.samples(100):
        row = sample.features.copy()
        row[6] = 0.0
        trust.learned(replace(sample, features=row))
    features = WORLD.candidates().features
    features.values[:, 6] = 5.0

    assert not verdict(trust, features=features).outside.any()


def test_the_learned_range_survives_a_restart():
    trust, again = a_trust_that_saw_the_world(), Trust()
    again.adopt(Trust.range_from(trust.state()))

    assert again.state() == trust.state()
    assert not verdict(again).outside.any()
    assert Trust.range_from(Trust().state()) is None
