"""What the prefix cache keeps, and what it forgets first."""

from __future__ import annotations

from lodestar_extproc.simulator.engine import Engine
from simulated_engines import a_spec, ids, run, submit


def cached_of(engine: Engine, block_ids, prompt: int, request: int = 99, at_s: float = 1e6) -> int:
    """How much of a prompt a copy of *engine* finds in its cache at *at_s*."""
    copy = engine.clone()
    copy.advance(at_s)
    submit(copy, request, prompt, block_ids=block_ids, at_s=at_s)
    return run(copy)[2][request]


def test_a_prompt_seen_before_is_hit_but_for_its_last_token():
    engine = Engine(a_spec())
    submit(engine, 0, 48, block_ids=ids(1, 2, 3))
    run(engine)
    assert cached_of(engine, ids(1, 2, 3), 48) == 32
    assert cached_of(engine, ids(1, 2, 3), 49) == 48


def test_a_hit_ends_at_the_first_block_that_differs():
    engine = Engine(a_spec())
    submit(engine, 0, 48, block_ids=ids(1, 2, 3))
    run(engine)
    assert cached_of(engine, ids(1, 9, 3), 50) == 16
    assert cached_of(engine, ids(9, 2, 3), 50) == 0


def test_the_prompt_of_a_running_request_is_hit():
    engine = Engine(a_spec(token_budget=64))
    submit(engine, 0, 64, output=10, block_ids=ids(1, 2, 3, 4))
    submit(engine, 1, 65, block_ids=ids(1, 2, 3, 4), at_s=0.001)
    _, _, cached = run(engine)
    assert cached == {0: 0, 1: 64}


def test_a_block_is_hit_within_the_step_that_computes_it():
    engine = Engine(a_spec(token_budget=200))
    submit(engine, 0, 64, block_ids=ids(1, 2, 3, 4))
    submit(engine, 1, 65, block_ids=ids(1, 2, 3, 4))
    _, _, cached = run(engine)
    assert cached == {0: 0, 1: 64}


def test_shared_blocks_are_held_once():
    engine = Engine(a_spec(kv_blocks=6, token_budget=200))
    for request in range(3):
        submit(engine, request, 65, output=4, block_ids=ids(1, 2, 3, 4))
    engine.advance(0.0)
    # Four shared blocks and one of its own each would be seven: the third waits.
    assert [request for request, _ in engine.progress()] == [0, 1]
    engine.advance(0.01)
    assert engine.gauges().kv_usage_ratio == 1.0


def test_the_least_recently_freed_prompt_is_forgotten_first():
    engine = Engine(a_spec(kv_blocks=6))
    submit(engine, 0, 32, block_ids=ids(1, 2))
    submit(engine, 1, 32, block_ids=ids(3, 4), at_s=1.0)
    submit(engine, 2, 64, block_ids=ids(5, 6, 7, 8), at_s=2.0)
    run(engine)
    assert cached_of(engine, ids(1, 2), 33) == 0
    assert cached_of(engine, ids(3, 4), 33) == 32
    assert cached_of(engine, ids(5, 6, 7, 8), 65) == 64


def test_of_one_prompt_the_end_is_forgotten_first():
    engine = Engine(a_spec(kv_blocks=4))
    submit(engine, 0, 64 - 1, block_ids=ids(1, 2, 3))
    submit(engine, 1, 31, block_ids=ids(9), at_s=1.0)
    run(engine)
    # Of the unhashed block and the prompt's third, the second request took both.
    assert cached_of(engine, ids(1, 2, 3), 60) == 32


def test_a_hit_makes_a_prompt_recent():
    engine = Engine(a_spec(kv_blocks=6))
    submit(engine, 0, 32, block_ids=ids(1, 2))
    submit(engine, 1, 32, block_ids=ids(3, 4), at_s=1.0)
    submit(engine, 2, 33, block_ids=ids(1, 2), at_s=2.0)
    submit(engine, 3, 64, block_ids=ids(5, 6, 7, 8), at_s=3.0)
    run(engine)
    assert cached_of(engine, ids(1, 2), 33) == 32
    assert cached_of(engine, ids(3, 4), 33) == 0


def test_blocks_without_an_id_are_reused_before_any_cached_one():
    engine = Engine(a_spec(kv_blocks=8))
    submit(engine, 0, 32, block_ids=ids(1, 2))
    submit(engine, 1, 64, output=16, block_ids=ids(), at_s=1.0)
    submit(engine, 2, 64, output=16, block_ids=ids(), at_s=2.0)
    run(engine)
    assert cached_of(engine, ids(1, 2), 33) == 32


def test_an_answer_is_hit_by_the_next_turn_only_if_it_has_ids():
    for answer, expected in ((ids(1, 2), 32), (ids(1, 2, 3, 4), 64)):
        engine = Engine(a_spec())
        submit(engine, 0, 32, output=33, block_ids=answer)
        run(engine)
        assert cached_of(engine, ids(1, 2, 3, 4, 5), 80) == expected


def test_an_answer_is_not_hit_before_it_is_generated():
    engine = Engine(a_spec())
    submit(engine, 0, 32, output=33, block_ids=ids(1, 2, 3, 4))
    engine.advance(0.2)
    submit(engine, 1, 80, block_ids=ids(1, 2, 3, 4, 5), at_s=0.2)
    _, _, cached = run(engine)
    assert cached[1] == 48
