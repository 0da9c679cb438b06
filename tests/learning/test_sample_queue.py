"""Samples that wait are learned in their order, none twice and none not at all."""

import random

import pytest

from lodestar_extproc.learning.sample_queue import AT_ONCE_SAMPLES, DELAY_S, SampleQueue


class Clock:
    """Calls later what it is asked to, when time passes."""

    def __init__(self):
        self.asked = []

    def later(self, delay_s, act):
        self.asked.append((delay_s, act))

    def passes(self):
        while self.asked:
            self.asked.pop(0)[1]()


def test_at_first_a_sample_is_learned_at_once():
    learned = []
    queue = SampleQueue(learned.append)
    queue.add(1)

    assert learned == [1]


def test_later_all_are_learned_in_the_order_in_which_they_came():
    learned, clock, rng, n = [], Clock(), random.Random(0), 0
    queue = SampleQueue(learned.append)
    queue.learn_later(clock.later)
    for _ in range(200):
        for _ in range(rng.randrange(3 * AT_ONCE_SAMPLES)):
            queue.add(n)
            n += 1
        if rng.random() < 0.3:
            clock.passes()
    clock.passes()

    assert learned == list(range(n))


def test_what_came_together_is_learned_within_the_delay_and_a_few_at_a_time():
    learned, clock = [], Clock()
    queue = SampleQueue(learned.append)
    queue.learn_later(clock.later)
    for i in range(AT_ONCE_SAMPLES + 1):
        queue.add(i)
    ((delay_s, act),) = clock.asked
    assert (learned, delay_s) == ([], DELAY_S)

    clock.asked.clear()
    act()
    assert len(learned) == AT_ONCE_SAMPLES
    assert [delay_s for delay_s, _ in clock.asked] == [0.0]


def test_what_waits_can_be_learned_before_its_time():
    learned, clock = [], Clock()
    queue = SampleQueue(learned.append)
    queue.learn_later(clock.later)
    queue.add(1)
    queue.catch_up()
    queue.add(2)
    queue.learn_later(None)

    assert (learned, len(queue)) == ([1, 2], 0)
    clock.passes()
    assert learned == [1, 2]


def test_a_sample_that_cannot_be_learned_costs_no_other():
    learned, clock = [], Clock()

    def learn(sample):
        if sample == 1:
            raise ZeroDivisionError
        learned.append(sample)

    queue = SampleQueue(learn)
    queue.learn_later(clock.later)
    for i in range(4):
        queue.add(i)
    with pytest.raises(ZeroDivisionError):
        clock.passes()
    clock.passes()
    queue.add(4)
    clock.passes()

    assert learned == [0, 2, 3, 4]
