import random

import numpy as np

from lodestar_extproc.learning.replay_buffer import ReplayBuffer


def filled(values, recent=10, older=20):
    buffer = ReplayBuffer(2, random.Random(0), recent=recent, older=older)
    for value in values:
        buffer.add(np.array([value, value], np.float32))
    return buffer


def test_keeps_everything_while_there_is_room():
    assert sorted(filled(range(25)).rows()[:, 0]) == list(range(25))


def test_the_latest_are_always_there_and_the_size_is_bounded():
    buffer = filled(range(1000))

    assert len(buffer) == len(buffer.rows()) == 30
    assert set(range(990, 1000)) <= set(buffer.rows()[:, 0])


def test_rows_are_a_copy():
    buffer = filled(range(5))
    buffer.rows()[:] = -1

    assert (buffer.rows() >= 0).all()


def test_rare_situations_outlive_a_flood_of_common_ones():
    rng = random.Random(1)
    values = [1000.0] * 5 + [rng.gauss(1, 0.01) for _ in range(2000)]

    assert (filled(values).rows()[:, 0] == 1000.0).sum() >= 4


def test_a_buffer_without_room_for_older_rows_keeps_the_latest():
    assert sorted(filled(range(30), older=0).rows()[:, 0]) == list(range(20, 30))
