import doctest

import pytest

from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.learning import generation_times
from lodestar_extproc.learning.generation_times import GenerationTimes

FAST, SLOW = Endpoint("10.0.0.1:80", "fast"), Endpoint("10.0.0.2:80", "slow")


def test_the_first_answers_weigh_alike():
    times = GenerationTimes()
    for generation_s in (1.0, 2.0, 6.0):
        times.add("fast", generation_s)

    assert times.mean_s([FAST]) == pytest.approx([3.0])


def test_a_change_is_followed():
    times = GenerationTimes()
    for generation_s in (1.0,) * 1000 + (5.0,) * 500:
        times.add("fast", generation_s)

    assert times.mean_s([FAST]) == pytest.approx([5.0], rel=0.01)


def test_an_accelerator_that_has_not_answered_yet_is_taken_for_an_average_one():
    times = GenerationTimes()
    times.add("fast", 2.0)

    assert times.mean_s([FAST, SLOW]).tolist() == [2.0, 2.0]


def test_the_example_holds():
    assert doctest.testmod(generation_times).failed == 0
