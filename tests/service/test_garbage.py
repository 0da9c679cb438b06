"""What the garbage collector is set to: what waits for it is bounded, young or old."""

from __future__ import annotations

import subprocess
import sys
import textwrap

RINGS = """
import gc, weakref
from lodestar_extproc.service.garbage import settle_garbage

class Ring:
    def __init__(self):
        self.itself = self

kept = [Ring() for _ in range(200_000)]  # as much as the service has when it is ready
settle_garbage()
alive = weakref.WeakSet()
"""


def told(program: str) -> int:
    script = RINGS + textwrap.dedent(program)
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return int(done.stdout)


def test_of_many_calls_that_leave_a_ring_few_wait():
    most = told("""
        most = 0
        for _ in range(400):
            for _ in range(100):
                alive.add(Ring())
            most = max(most, len(alive))
        print(most)
    """)
    assert most <= 10_000


def test_a_call_that_was_open_when_garbage_was_collected_is_collected_once_it_is_over():
    n_alive = told("""
        open_call = Ring()
        alive.add(open_call)
        for generation in (0, 1):
            gc.collect(generation)
        del open_call
        others = [[] for _ in range(20_000)]  # go on to be used, as what was learned
        for _ in range(2_400_000):
            ring = []
            ring.append(ring)
        print(len(alive))
    """)
    assert n_alive == 0
