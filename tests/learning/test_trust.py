from dataclasses import replace

import numpy as np
import pytest

from builders import live_settings
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


def verdicts(trust, n_samples=1000, features=None):
    """On every endpoint."""
    features = WORLD.candidates().features if features is None else features
    return [
        trust.judge(
            WORLD.endpoints[i].address,
            is_in_range=trust.is_in_range(features.row(i), 2.0),
            n_samples=n_samples,
        )
        for i in range(3)
    ]


def a_trust_that_saw_the_world(**limits):
    trust = Trust(live_settings(**limits))
    for sample in WORLD.samples(300):
        trust.learned(sample)
    return trust


def test_burn_in_lasts_as_long_as_it_says():
    trust = a_trust_that_saw_the_world(burn_in_samples=50)

    assert verdicts(trust, 49) == [Reason.BURN_IN] * 3
    assert verdicts(trust, 50) == [Reason.MODEL] * 3


def test_a_predictor_without_a_sample_is_never_trusted():
    assert verdicts(Trust(live_settings(burn_in_samples=0)), 0) == [Reason.BURN_IN] * 3


def test_trust_is_lost_above_the_limit_and_regained_only_well_below():
    trust, errors = a_trust_that_saw_the_world(trust_max_error_ratio=0.5), LiveErrors()
    told(trust, errors, FIRST, 60, 1.45)
    assert trust.reason(1000) is Reason.MODEL
    told(trust, errors, FIRST, 60, 1.6)
    assert trust.reason(1000) is Reason.UNTRUSTED
    told(trust, errors, FIRST, 60, 1.45)
    assert trust.reason(1000) is Reason.UNTRUSTED
    told(trust, errors, FIRST, 60, 1.2)
    assert trust.reason(1000) is Reason.MODEL


def test_a_predictor_no_better_than_the_median_is_not_trusted():
    trust, errors = a_trust_that_saw_the_world(trust_max_error_ratio=0.5), LiveErrors()
    for _ in range(200):
        errors.record(FIRST, 1.4, 1.0)
        trust.update(FIRST, errors)

    assert errors.trivial.error_ratio == 0
    assert trust.reason(1000) is Reason.UNTRUSTED


def test_an_error_that_does_no_harm_is_trusted_even_if_the_median_is_better():
    trust, errors = a_trust_that_saw_the_world(trust_max_error_ratio=0.5), LiveErrors()
    for _ in range(200):
        errors.record(FIRST, 1.1, 1.0)
        trust.update(FIRST, errors)

    assert trust.reason(1000) is Reason.MODEL


def test_one_endpoint_is_doubted_alone():
    trust, errors = a_trust_that_saw_the_world(), LiveErrors()
    for _ in range(20):
        told(trust, errors, FIRST, 10, 1.05)
        told(trust, errors, SECOND, 3, 3.0)

    assert trust.reason(1000) is Reason.MODEL
    assert verdicts(trust) == [Reason.MODEL, Reason.UNTRUSTED, Reason.MODEL]
    trust.forget(SECOND)
    assert verdicts(trust) == [Reason.MODEL] * 3


def test_every_candidate_is_judged_by_its_own_range():
    trust, features = a_trust_that_saw_the_world(), WORLD.candidates().features
    features.values[1, 1] = 1e6

    found = verdicts(trust, features=features)
    assert found == [Reason.MODEL, Reason.OUT_OF_RANGE, Reason.MODEL]


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_broken_feature_is_out_of_range(broken):
    trust, features = a_trust_that_saw_the_world(), WORLD.candidates().features
    features.values[2, 4] = broken

    found = verdicts(trust, features=features)
    assert found[2] is Reason.OUT_OF_RANGE


def test_a_feature_that_never_varied_may_begin_to():
    trust = Trust(live_settings())
    for sample in WORLD.samples(100):
        row = sample.features.copy()
        row[6] = 0.0
        trust.learned(replace(sample, features=row))
    features = WORLD.candidates().features
    features.values[:, 6] = 5.0

    assert verdicts(trust, features=features) == [Reason.MODEL] * 3


def test_the_learned_range_survives_a_restart():
    trust, again = a_trust_that_saw_the_world(), Trust(live_settings())
    again.adopt(Trust.range_from(trust.state()))

    assert again.state() == trust.state()
    assert verdicts(again) == [Reason.MODEL] * 3
    assert Trust.range_from(Trust(live_settings()).state()) is None


def test_a_liar_faster_than_it_can_be_is_doubtful_alone():
    trust, errors = a_trust_that_saw_the_world(), LiveErrors()
    others = [endpoint.address for endpoint in WORLD.endpoints[1:]]
    for _ in range(100):
        for address in others:
            told_alone(trust, errors, address, 1.0)
        for _ in range(4):
            told_alone(trust, errors, FIRST, 0.02)

    assert trust.is_doubtful(FIRST)
    assert trust.reason(1000) is Reason.MODEL
    assert verdicts(trust) == [Reason.UNTRUSTED, Reason.MODEL, Reason.MODEL]


def test_where_most_are_faster_than_predicted_the_predictor_is_wrong():
    trust, errors = a_trust_that_saw_the_world(), LiveErrors()
    for _ in range(60):
        for endpoint in WORLD.endpoints:
            told_alone(trust, errors, endpoint.address, 0.1)

    assert trust.reason(1000) is Reason.UNTRUSTED


def told_alone(trust, errors, address, observed_s):
    """As a learner tells it, the prediction being 1 s."""
    errors.record(address, 1.0, observed_s, alone=trust.is_alone(address, errors))
    trust.update(address, errors)
