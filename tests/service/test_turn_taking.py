"""Threads that compute beside the event loop give way to it soon."""

import sys

import pytest

from lodestar_extproc.service.turn_taking import LONGEST_TURN_S, give_way_soon


@pytest.fixture
def as_before():
    before_s = sys.getswitchinterval()
    yield before_s
    sys.setswitchinterval(before_s)


def test_a_thread_may_hold_up_the_loop_for_a_tenth_of_what_the_path_may_take(as_before):
    give_way_soon()
    assert sys.getswitchinterval() == pytest.approx(LONGEST_TURN_S)
    assert LONGEST_TURN_S <= 0.005 / 10
