"""What a step costs: worked by hand from the formula and the A30's coefficients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lodestar_extproc.simulator.accelerators import ACCELERATORS
from lodestar_extproc.simulator.engine import Engine
from simulated_engines import a_spec, quiet, run, submit

A30 = replace(quiet(ACCELERATORS["a30"]), api_delay_s=0.0)


def test_a_prompt_costs_dense_work_attention_and_host_time():
    engine = Engine(A30)
    submit(engine, 0, prompt=1000)
    first, _, _ = run(engine)
    dense, attention, host = 8.0 + 0.15 * 1000, 5.6 * 1000 * 500 / 1e6, 0.7
    assert first[0] == pytest.approx((dense + attention + host) / 1e3)


def test_a_decode_costs_the_floor_and_its_context():
    engine = Engine(A30)
    submit(engine, 0, prompt=1000, output=2)
    first, end, _ = run(engine)
    assert end[0] - first[0] == pytest.approx((20.1 + 0.01 + 0.165 * 1001 / 1e3 + 0.7) / 1e3)


def test_attention_of_a_mixed_step_costs_a_quarter_more():
    engine = Engine(A30)
    submit(engine, 0, prompt=1000, output=3)
    submit(engine, 1, prompt=500, at_s=0.05)
    first, _, _ = run(engine)
    attention = 5.6 * 500 * 250 / 1e6 + 0.165 * 1001 / 1e3
    mixed_ms = 8.0 + 0.15 * 501 + 0.01 + 0.7 + 1.25 * attention
    assert first[1] - first[0] == pytest.approx(mixed_ms / 1e3)


def test_a_later_chunk_attends_to_the_earlier_ones():
    engine = Engine(A30)
    submit(engine, 0, prompt=3000)
    first, _, _ = run(engine)
    chunk_1 = 8.0 + 0.15 * 2048 + 5.6 * 2048 * 1024 / 1e6 + 0.7
    chunk_2 = 8.0 + 0.15 * 952 + 5.6 * 952 * (2048 + 476) / 1e6 + 0.7
    assert first[0] == pytest.approx((chunk_1 + chunk_2) / 1e3)


def test_the_api_delay_comes_before_the_queue():
    engine = Engine(quiet(ACCELERATORS["a30"]))
    submit(engine, 0, prompt=16, at_s=5.0)
    assert engine.next_event_s() == pytest.approx(5.02)


def test_a_slowed_engine_takes_the_factor_longer():
    engine = Engine(a_spec())
    engine.slow_down(3.0)
    submit(engine, 0, prompt=16)
    first, _, _ = run(engine)
    assert first[0] == pytest.approx(0.030)


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_slow_down_is_refused(factor):
    with pytest.raises(ValueError, match="positive"):
        Engine(a_spec()).slow_down(factor)


def test_jitter_spreads_steps_by_its_coefficient_of_variation():
    engine = Engine(replace(a_spec(kv_blocks=2000), jitter_cv=0.04), seed=1)
    steps = step_times(engine, 20_000)
    assert np.mean(steps) == pytest.approx(0.010, rel=0.005)
    assert np.std(steps) / np.mean(steps) == pytest.approx(0.04, rel=0.05)


def test_stalls_are_as_frequent_and_as_long_as_specified():
    engine = Engine(replace(a_spec(kv_blocks=2000), stall_ratio=0.02), seed=1)
    steps = step_times(engine, 20_000)
    stalls = steps[steps > 0.011] - 0.010
    assert len(stalls) / len(steps) == pytest.approx(0.02, rel=0.15)
    assert stalls.min() >= 0.05
    assert stalls.max() <= 0.3
    assert stalls.mean() == pytest.approx(0.175, rel=0.05)


def step_times(engine: Engine, n: int) -> np.ndarray:
    submit(engine, 0, prompt=16, output=n)
    ends = []
    while engine.in_flight():
        ends.append(engine.next_event_s())
        engine.advance(ends[-1])
    return np.diff(ends)
