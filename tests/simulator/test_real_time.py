"""The engine on a clock: a loop that only moves when told to."""

from __future__ import annotations

import heapq
import itertools

import numpy as np
import pytest

from lodestar_extproc.simulator.engine import Engine
from lodestar_extproc.simulator.real_time import RealTimeEngine
from simulated_engines import STEP_S, a_spec


class Timer:
    def __init__(self):
        self.cancelled = False

    def cancel(self):
        self.cancelled = True


class HandLoop:
    """As much of an event loop as a RealTimeEngine needs."""

    def __init__(self, at_s=1000.0, early_s=0.0):
        self.at_s, self.early_s, self.timers, self.order = at_s, early_s, [], itertools.count()

    def time(self):
        return self.at_s

    def call_at(self, when, callback):
        timer = Timer()
        heapq.heappush(self.timers, (when - self.early_s, next(self.order), timer, callback))
        return timer

    def run(self, for_s):
        end_s = self.at_s + for_s
        while self.timers and self.timers[0][0] <= end_s:
            when, _, timer, callback = heapq.heappop(self.timers)
            self.at_s = max(self.at_s, when)
            if not timer.cancelled:
                callback()
        self.at_s = end_s

    def stall(self, for_s):
        """The loop is busy elsewhere."""
        self.at_s += for_s


class Recorder:
    def __init__(self, loop):
        self.loop, self.seen, self.cached, self.end_s = loop, {}, None, None

    def admitted(self, cached_tokens):
        self.cached = cached_tokens

    def tokens(self, generated):
        self.seen.setdefault(generated, self.loop.time())

    def completed(self):
        self.end_s = self.loop.time()


def submit(engine, loop, prompt=16, output=3):
    recorder = Recorder(loop)
    return engine.submit(np.empty(0, np.uint64), prompt, output, recorder), recorder


@pytest.mark.parametrize("early_s", [0.0, 0.0005])
def test_tokens_come_at_the_ends_of_steps(early_s):
    loop = HandLoop(early_s=early_s)
    engine = RealTimeEngine(Engine(a_spec()), loop)
    _, answer = submit(engine, loop)
    loop.run(1.0)
    times = [answer.seen[1], answer.seen[2], answer.end_s]
    assert times == pytest.approx([1000 + n * STEP_S for n in (1, 2, 3)], abs=2 * early_s + 1e-9)
    assert engine.in_flight() == 0


def test_speed_divides_all_times():
    loop = HandLoop()
    engine = RealTimeEngine(Engine(a_spec(api_delay_s=0.02)), loop, speed=4.0)
    _, answer = submit(engine, loop)
    loop.run(1.0)
    assert answer.end_s == pytest.approx(1000 + (0.02 + 3 * STEP_S) / 4)


def test_a_request_in_an_idle_hour_starts_when_it_comes():
    loop = HandLoop()
    engine = RealTimeEngine(Engine(a_spec()), loop)
    loop.run(3600.0)
    _, answer = submit(engine, loop, output=1)
    loop.run(1.0)
    assert answer.end_s == pytest.approx(4600 + STEP_S)


def test_a_late_loop_catches_up():
    loop = HandLoop()
    engine = RealTimeEngine(Engine(a_spec()), loop)
    _, answer = submit(engine, loop, output=30)
    loop.run(0.015)
    loop.stall(0.1)
    loop.run(0.0)
    assert list(answer.seen) == [0, 1, 11]


def test_a_frozen_engine_gets_nowhere_and_goes_on_where_it_was():
    loop = HandLoop()
    engine = RealTimeEngine(Engine(a_spec()), loop)
    _, first = submit(engine, loop, output=5)
    loop.run(0.025)
    engine.freeze()
    _, second = submit(engine, loop, output=1)
    loop.run(50.0)
    assert max(first.seen) == 2
    assert second.seen == {}
    engine.thaw()
    loop.run(1.0)
    assert first.end_s == pytest.approx(1050 + 5 * STEP_S)
    assert second.end_s == pytest.approx(1050 + 4 * STEP_S)


def test_an_aborted_request_is_told_nothing_more():
    loop = HandLoop()
    engine = RealTimeEngine(Engine(a_spec()), loop)
    number, gone = submit(engine, loop, output=5)
    _, other = submit(engine, loop, output=5)
    loop.run(0.025)
    engine.abort(number)
    engine.abort(number)
    loop.run(1.0)
    assert max(gone.seen) == 2
    assert gone.end_s is None
    assert other.end_s is not None
    assert engine.gauges().running == 0


def test_a_closed_engine_leaves_no_timer():
    loop = HandLoop()
    engine = RealTimeEngine(Engine(a_spec()), loop)
    _, answer = submit(engine, loop)
    engine.close()
    loop.run(1.0)
    assert answer.seen == {}
