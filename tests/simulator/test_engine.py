"""The engine as its callers see it: events, gauges, copies, limits; and against the plain one."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest

from lodestar_extproc.simulator.accelerators import ACCELERATORS, StepCost
from lodestar_extproc.simulator.engine import Engine, EngineFull, EventKind
from plain_engine import PlainEngine
from simulated_engines import STEP_S, a_spec, ids, quiet, run, submit

COST = StepCost(2.0, 1.0, 0.05, 30.0, 0.1, 3.0)


def some_requests(seed: int, n: int = 120):
    """Prompts that share prefixes, a third of them with ids for the answer too."""
    rng = random.Random(seed)
    at_s = 0.0
    for request in range(n):
        at_s += rng.expovariate(60.0)
        prompt, output = rng.randint(1, 200), rng.randint(1, 40)
        family, own = rng.randint(0, 5), rng.randint(1, 12)
        n_ids = (prompt + (output if rng.random() < 0.3 else 0)) // 16
        blocks = [1000 * family + j if j < own else 10**6 * (request + 1) + j for j in range(n_ids)]
        yield request, ids(*blocks), prompt, output, at_s


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("chunked", [True, False])
def test_the_compiled_engine_does_what_the_plain_one_does(seed, chunked):
    spec = a_spec(
        cost=COST,
        kv_blocks=40,
        token_budget=96 if chunked else 250,
        max_running=12,
        chunked=chunked,
        prefix_caching=chunked,
        watermark_blocks=0 if chunked else 2,
        api_delay_s=0.02,
    )
    engine, plain = Engine(spec), PlainEngine(spec)
    got, expected = [], []
    for arguments in some_requests(seed):
        got += engine.advance(arguments[-1])
        expected += plain.advance(arguments[-1])
        engine.submit(*arguments)
        plain.submit(*arguments)
    got += engine.advance(1e6)
    expected += plain.advance(1e6)
    assert plain.preemptions > 0
    assert engine.gauges().preemptions == plain.preemptions
    assert [(k, r, c) for k, r, _, c in got] == [(k, r, c) for k, r, _, c in expected]
    assert [e[2] for e in got] == pytest.approx([e[2] for e in expected], abs=1e-9)
    assert len(got) == 240


def test_a_drained_engine_holds_nothing():
    engine = Engine(replace(a_spec(cost=COST, kv_blocks=40), jitter_cv=0.1), seed=3)
    for arguments in some_requests(seed=9):
        engine.advance(arguments[-1])
        engine.submit(*arguments)
        if arguments[0] % 5 == 0:
            engine.abort(arguments[0] - 3)
    engine.advance(math.inf)
    gauges = engine.gauges()
    assert (gauges.running, gauges.waiting, gauges.kv_usage_ratio) == (0, 0, 0.0)
    assert engine.in_flight() == 0
    assert engine.next_event_s() == math.inf


def test_equal_seeds_give_equal_runs_and_others_do_not():
    def times(seed):
        engine = Engine(ACCELERATORS["a30"], seed)
        for arguments in some_requests(seed=1):
            engine.submit(*arguments)
        return [event.at_s for event in engine.advance(math.inf)]

    assert times(5) == times(5)
    assert times(5) != times(6)


def test_advancing_in_small_pieces_changes_nothing():
    whole, pieces = Engine(ACCELERATORS["h100"], 2), Engine(ACCELERATORS["h100"], 2)
    for engine in (whole, pieces):
        for arguments in some_requests(seed=1):
            engine.submit(*arguments)
    events = []
    while pieces.in_flight():
        events += pieces.advance(pieces.next_event_s())
    assert events == whole.advance(math.inf)


def test_events_tell_first_token_completion_and_cached_tokens():
    engine = Engine(a_spec())
    submit(engine, 7, 32, output=2, block_ids=ids(1, 2))
    assert engine.advance(math.inf) == [
        (EventKind.FIRST_TOKEN, 7, pytest.approx(STEP_S), 0),
        (EventKind.COMPLETED, 7, pytest.approx(2 * STEP_S), 0),
    ]


def test_a_one_token_answer_has_both_events():
    engine = Engine(a_spec())
    submit(engine, 0, 16, output=1)
    assert [event.kind for event in engine.advance(1.0)] == [0, 1]


def test_progress_counts_tokens_as_steps_end():
    engine = Engine(a_spec())
    submit(engine, 0, 16, output=5)
    submit(engine, 1, 16, output=5, at_s=0.005)
    seen = []
    for step in range(4):
        engine.advance(step * STEP_S)
        seen.append(engine.progress())
    assert seen == [[(0, 0)], [(0, 1), (1, 0)], [(0, 2), (1, 1)], [(0, 3), (1, 2)]]


def test_gauges_move_only_at_the_end_of_a_step():
    engine = Engine(a_spec())
    for request in range(5):
        submit(engine, request, 64, output=2)
    engine.advance(0.0099)
    assert (engine.gauges().running, engine.gauges().waiting) == (0, 0)
    assert engine.in_flight() == 5
    engine.advance(0.01)
    assert (engine.gauges().running, engine.gauges().waiting) == (1, 4)
    assert engine.gauges().kv_usage_ratio == pytest.approx(0.04)


def test_a_copy_runs_on_its_own():
    engine = Engine(a_spec())
    submit(engine, 0, 64, output=3, block_ids=ids(1, 2, 3, 4))
    engine.advance(0.01)
    copy = engine.clone()
    submit(copy, 1, 64, block_ids=ids(1, 2, 3, 4), at_s=0.01)
    assert run(copy)[2] == {0: 0, 1: 48}
    assert run(engine)[2] == {0: 0}


def test_a_copy_without_noise_predicts_the_mean():
    engine = Engine(replace(a_spec(), jitter_cv=0.5), seed=1)
    submit(engine, 0, 64)
    copy = engine.clone()
    assert copy.run_to_first_token(0) == pytest.approx(STEP_S)
    assert engine.clone(noise=True).run_to_first_token(0) == engine.run_to_first_token(0) != STEP_S


def test_running_to_a_first_token_stops_there():
    engine = Engine(a_spec())
    submit(engine, 0, 16, output=50)
    submit(engine, 1, 16, output=50)
    assert engine.run_to_first_token(1) == pytest.approx(STEP_S)
    assert engine.progress() == [(0, 1), (1, 1)]
    assert engine.run_to_first_token(42) == math.inf


@pytest.mark.parametrize("at_s", [0.0, 0.001, 0.015])
def test_an_aborted_request_is_gone_and_its_blocks_free(at_s):
    engine = Engine(a_spec(kv_blocks=10, token_budget=64, max_running=2, api_delay_s=0.001))
    for request in range(4):
        submit(engine, request, 48, output=10)
    engine.advance(at_s)
    assert all(engine.abort(request) for request in (0, 2, 3))
    assert not engine.abort(17)
    first, end, _ = run(engine)
    assert set(end) == {1}
    assert set(first) <= {0, 1}
    assert engine.in_flight() == 0
    assert engine.gauges().kv_usage_ratio == 0.0


def test_requests_that_can_never_fit_are_refused():
    engine = Engine(a_spec(kv_blocks=10))
    with pytest.raises(ValueError, match="exceed the engine's 160"):
        submit(engine, 0, 150, output=11)
    submit(engine, 0, 150, output=10)
    assert set(run(engine)[1]) == {0}


@pytest.mark.parametrize(("prompt", "output"), [(0, 1), (1, 0)])
def test_empty_requests_are_refused(prompt, output):
    with pytest.raises(ValueError, match="at least one"):
        submit(Engine(a_spec()), 0, prompt, output)


def test_time_cannot_run_backwards():
    engine = Engine(a_spec())
    submit(engine, 0, 16, at_s=1.0)
    with pytest.raises(ValueError, match="backwards"):
        submit(engine, 1, 16, at_s=0.9)
    engine.advance(2.0)
    with pytest.raises(ValueError, match="backwards"):
        submit(engine, 1, 16, at_s=1.9)


def test_growth_ends_at_the_bound_and_loses_nothing():
    engine = Engine(a_spec(max_live_requests=500, token_budget=10_000, kv_blocks=1000))
    for request in range(500):
        submit(engine, request, 33, block_ids=ids(request % 7, 10 + request % 7))
    with pytest.raises(EngineFull):
        submit(engine, 500, 33)
    _, end, cached = run(engine)
    assert len(end) == 500
    assert sum(cached.values()) == (500 - 7) * 32


@pytest.mark.parametrize("spec", ACCELERATORS.values(), ids=ACCELERATORS.keys())
def test_every_accelerator_runs_and_returns_to_rest(spec):
    engine = Engine(quiet(spec))
    for arguments in some_requests(seed=2, n=40):
        engine.submit(*arguments)
    assert len(engine.advance(math.inf)) == 80
    assert engine.gauges().kv_usage_ratio == 0.0


def test_extreme_block_ids_are_as_good_as_any():
    engine = Engine(a_spec())
    block_ids = np.array([0, 2**64 - 1, 2**63], np.uint64)
    submit(engine, 0, 49, block_ids=block_ids)
    submit(engine, 1, 49, block_ids=block_ids, at_s=1.0)
    assert run(engine)[2] == {0: 0, 1: 48}


def test_a_step_that_is_scheduled_ahead_takes_up_only_what_had_come_when_the_last_one_began():
    first_token_s = []
    for ahead in (False, True):
        engine = Engine(a_spec(scheduled_ahead=ahead))
        submit(engine, 0, prompt=16, output=8)
        submit(engine, 1, prompt=16, at_s=1.5 * STEP_S)
        first, _, _ = run(engine)
        first_token_s.append(first[1])

    assert first_token_s == pytest.approx([3 * STEP_S, 4 * STEP_S])
