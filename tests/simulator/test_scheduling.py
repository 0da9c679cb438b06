"""Who computes what in a step, and who waits."""

from __future__ import annotations

from lodestar_extproc.simulator.engine import Engine
from simulated_engines import STEP_S, a_spec, ids, run, submit


def steps(n: int) -> float:
    return round(n * STEP_S, 9)


def test_a_prompt_beyond_the_budget_is_computed_in_chunks():
    engine = Engine(a_spec(token_budget=64))
    submit(engine, 0, prompt=150)
    first, _, _ = run(engine)
    assert first == {0: steps(3)}


def test_prompts_share_a_step_until_the_budget_is_spent():
    engine = Engine(a_spec(token_budget=64))
    submit(engine, 0, prompt=48)
    submit(engine, 1, prompt=32)
    submit(engine, 2, prompt=32)
    first, _, _ = run(engine)
    assert first == {0: steps(1), 1: steps(2), 2: steps(2)}


def test_decodes_go_on_while_a_long_prompt_is_computed():
    engine = Engine(a_spec(token_budget=64))
    submit(engine, 0, prompt=16, output=4)
    submit(engine, 1, prompt=63 * 3)
    first, end, _ = run(engine)
    # 48 tokens beside the prompt, then 63 a step beside the decode.
    assert first == {0: steps(1), 1: steps(4)}
    assert end[0] == steps(4)


def test_no_more_run_than_the_limit():
    engine = Engine(a_spec(max_running=2))
    for request in range(3):
        submit(engine, request, prompt=16, output=2)
    first, _, _ = run(engine)
    assert first == {0: steps(1), 1: steps(1), 2: steps(3)}


def test_a_head_that_does_not_fit_holds_up_those_behind_it():
    engine = Engine(a_spec(kv_blocks=6, token_budget=48))
    submit(engine, 0, prompt=48, output=5)
    submit(engine, 1, prompt=64, output=1)
    submit(engine, 2, prompt=16, output=1)
    first, end, _ = run(engine)
    # The third would fit beside the first, but not before the second.
    assert end[0] == steps(5)
    assert first[1] == first[2] == steps(7)


def test_arrivals_wait_for_the_step_in_progress():
    engine = Engine(a_spec())
    submit(engine, 0, prompt=16, output=3)
    submit(engine, 1, prompt=16, at_s=0.001)
    first, _, _ = run(engine)
    assert first == {0: steps(1), 1: steps(2)}


def test_an_idle_engine_starts_at_once():
    engine = Engine(a_spec(api_delay_s=0.02))
    submit(engine, 0, prompt=16, at_s=7.0)
    first, _, _ = run(engine)
    assert first == {0: round(7.03, 9)}


def test_out_of_blocks_the_last_admitted_is_recomputed():
    engine = Engine(a_spec(kv_blocks=5))
    submit(engine, 0, prompt=32, output=20)
    submit(engine, 1, prompt=32, output=20)
    first, end, _ = run(engine)
    # Both hold two blocks. At step 2 the first takes the fifth, the second finds none and goes.
    assert first == {0: steps(1), 1: steps(1)}
    assert engine.gauges().preemptions == 1
    assert end[0] == steps(20)
    # Prompt and one token once more, and the other 18.
    assert end[1] == steps(20 + 19)


def test_a_recomputed_request_hits_its_own_prompt():
    engine = Engine(a_spec(kv_blocks=5, token_budget=16))
    submit(engine, 0, prompt=32, output=20)
    submit(engine, 1, prompt=32, output=20)
    run(engine)
    gauges = engine.gauges()
    assert gauges.preemptions >= 1
    assert gauges.generated_tokens == 40
    # Usage and hit counters speak of the first admission.
    assert gauges.prefix_hit_tokens == 0
    assert gauges.prefix_query_tokens == 64


def test_nobody_is_admitted_in_a_step_that_preempted():
    engine = Engine(a_spec(kv_blocks=5))
    submit(engine, 0, prompt=32, output=20)
    submit(engine, 1, prompt=32, output=20)
    submit(engine, 2, prompt=16, output=1, at_s=0.001)
    first, _, _ = run(engine)
    # The third would fit at step 2, but the second went then and stands before it.
    assert first[2] > steps(20)


def test_v0_computes_whole_prompts_while_decodes_wait():
    engine = Engine(a_spec(chunked=False, prefix_caching=False, token_budget=100))
    submit(engine, 0, prompt=80, output=3)
    submit(engine, 1, prompt=80, output=1)
    first, end, _ = run(engine)
    assert first == {0: steps(1), 1: steps(2)}
    assert end[0] == steps(4)


def test_v0_takes_as_many_prompts_as_fit_a_step():
    engine = Engine(a_spec(chunked=False, prefix_caching=False, token_budget=100))
    for request in range(3):
        submit(engine, request, prompt=40)
    first, _, _ = run(engine)
    assert first == {0: steps(1), 1: steps(1), 2: steps(2)}


def test_v0_keeps_blocks_in_reserve_unless_nothing_runs():
    spec = a_spec(chunked=False, prefix_caching=False, kv_blocks=4, watermark_blocks=1)
    engine = Engine(spec)
    submit(engine, 0, prompt=64 - 4, output=4)
    first, _, _ = run(engine)
    assert first == {0: steps(1)}
    engine = Engine(spec)
    submit(engine, 0, prompt=16, output=3)
    submit(engine, 1, prompt=48, output=1)
    first, end, _ = run(engine)
    assert first[1] == end[0] + STEP_S


def test_v0_has_no_prefix_cache():
    engine = Engine(a_spec(chunked=False, prefix_caching=False))
    submit(engine, 0, 32, block_ids=ids(1, 2))
    run(engine)
    submit(engine, 1, 32, block_ids=ids(1, 2), at_s=1.0)
    _, _, cached = run(engine)
    assert cached == {1: 0}
    assert engine.gauges().prefix_query_tokens == 0
