import random

import numpy as np
import pytest

from builders import a_fleet, an_endpoint
from lodestar_extproc.endpoint import EndpointMetrics
from lodestar_extproc.fleet.decode_speed import DecodeSpeed

ENDPOINTS = (an_endpoint(1), an_endpoint(2))
HOME = ENDPOINTS[0].address


def predicted(speed, *batches):
    return speed.tpot_s(ENDPOINTS[:1] * len(batches), np.array(batches, dtype=float)).tolist()


def test_it_learns_a_line_through_the_batch():
    speed, rng = DecodeSpeed(), random.Random(1)
    for _ in range(500):
        batch = rng.randrange(1, 60)
        speed.observe(HOME, batch, (0.01 + 0.001 * batch) * rng.uniform(0.9, 1.1))
    assert predicted(speed, 1, 30, 80) == pytest.approx([0.011, 0.04, 0.09], rel=0.1)


def test_it_follows_an_engine_that_becomes_slower():
    speed = DecodeSpeed()
    for s_per_token in (0.02, 0.08):
        for i in range(400):
            speed.observe(HOME, 5 + i % 7, s_per_token)
    assert predicted(speed, 8) == pytest.approx([0.08], rel=0.05)


def test_at_one_batch_only_a_larger_one_is_taken_to_be_as_fast():
    speed = DecodeSpeed()
    for _ in range(20):
        speed.observe(HOME, 4.0, 0.02)
    assert predicted(speed, 4, 40) == pytest.approx([0.02, 0.02])


def test_an_engine_is_unknown_until_it_was_seen_a_few_times_and_after_it_left():
    speed = DecodeSpeed()
    for _ in range(4):
        speed.observe(HOME, 1.0, 0.02)
    assert np.isnan(predicted(speed, 1.0)).all()
    speed.observe(HOME, 1.0, 0.02)
    known = speed.tpot_s(ENDPOINTS, np.ones(2))
    assert np.isfinite(known).tolist() == [True, False]
    speed.forget(HOME)
    assert np.isnan(predicted(speed, 1.0)).all()


def test_no_noise_makes_tokens_take_no_time():
    speed, rng = DecodeSpeed(), random.Random(2)
    for _ in range(200):
        speed.observe(HOME, rng.uniform(1, 9), rng.uniform(0.001, 5))
        assert not min(predicted(speed, 1, 5, 500)) <= 0


def test_it_is_learned_from_scrapes():
    fleet = a_fleet(1)
    for i in range(10):
        metrics = EndpointMetrics(running_requests=2.0, generation_tokens=100.0 * i)
        fleet.record_metrics(fleet.endpoints[0].address, metrics, float(i))
    assert fleet.decode_speed.tpot_s(fleet.endpoints, np.array([2.0])) == pytest.approx([0.02])
