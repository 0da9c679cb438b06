"""Agent sessions: what they look like, and who waits for whom."""

import numpy as np
import pytest

from lodestar_extproc.evaluation.fleets import find_fleet
from lodestar_extproc.evaluation.workloads.agent_sessions import (
    PRODUCTION,
    TOOL_GROUPS,
    TOOLS_TOKENS,
    AgentSessions,
)
from lodestar_extproc.evaluation.workloads.agent_threads import AgentTurn, Thread, Threads
from lodestar_extproc.evaluation.workloads.catalog import GENERATED
from lodestar_extproc.simulator.defaults import BLOCK_TOKENS


def turns(threads):
    return [turn for thread in threads for turn in thread.turns]


def reuse_ratios(thread):
    """Of each later turn's prompt, what the one before it began with."""
    for earlier, later in zip(thread.turns, thread.turns[1:], strict=False):
        if earlier.context == later.context:
            yield earlier.prompt_tokens / later.prompt_tokens
        else:
            yield 0.0


def starting(threads):
    """Sessions that begin in the run, from their first turn on."""
    main = [t for t in threads if t.started_at_s is not None]
    return main[-200:]


@pytest.fixture(scope="module")
def workload():
    return GENERATED["agent_sessions"].generate(17.0, 101, 6000)


def test_scaled_sessions_have_the_statistics_of_the_recorded_ones(workload):
    asked = turns(workload.threads)

    assert np.mean([t.prompt_tokens for t in asked]) == pytest.approx(4600, rel=0.08)
    assert np.mean([t.output_tokens for t in asked]) == pytest.approx(95, rel=0.05)
    assert np.median([len(t.turns) for t in starting(workload.threads)]) == pytest.approx(
        107, rel=0.15
    )
    reuse = [r for t in workload.threads for r in reuse_ratios(t)]
    assert np.mean(np.array(reuse) >= 0.9) == pytest.approx(0.92, abs=0.02)


def test_an_endless_cache_would_hold_nearly_all_of_them(workload):
    seen, n_tokens, n_known = set(), 0, 0
    for thread in workload.threads[-1000:]:
        for turn in thread.turns:
            ids = thread.contexts[turn.context][: turn.prompt_tokens // BLOCK_TOKENS].tolist()
            n_known += BLOCK_TOKENS * sum(block in seen for block in ids)
            n_tokens += turn.prompt_tokens
            seen.update(ids)

    assert n_known / n_tokens == pytest.approx(0.96, abs=0.01)


def test_full_size_sessions_have_the_statistics_of_production():
    source = AgentSessions(scale=1.0, output_scale=1.0, population=PRODUCTION)
    asked = turns(source.generate(2.0, 101, 4000).threads)
    prompts = [t.prompt_tokens for t in asked]

    assert np.median(prompts) == pytest.approx(195_000, rel=0.15)
    assert np.percentile(prompts, 99) == pytest.approx(800_000, rel=0.15)
    assert np.median([t.output_tokens for t in asked]) == pytest.approx(317, rel=0.05)
    think_s = [t.think_s for t in asked]
    assert np.median(think_s) == pytest.approx(2.0, rel=0.05)
    assert np.percentile(think_s, 90) == pytest.approx(24.0, rel=0.05)


def test_sessions_under_way_are_as_many_as_asked_for(workload):
    crowd = GENERATED["agent_crowd"].generate(17.0, 101, 6000)

    def begun(threads, before_s):
        return sum(t.started_at_s is not None and t.started_at_s < before_s for t in threads)

    assert begun(workload.threads, 40 / 17.0) == pytest.approx(40, abs=4)
    assert begun(crowd.threads, 80 / 17.0) == pytest.approx(80, abs=6)
    assert crowd.stretch > 2 * workload.stretch


def test_each_session_begins_with_one_of_a_few_lists_of_tools(workload):
    n_blocks = TOOLS_TOKENS // 24 // BLOCK_TOKENS
    tools = {c[:n_blocks].tobytes() for t in workload.threads for c in t.contexts}
    projects = {t.contexts[0][n_blocks : n_blocks + 4].tobytes() for t in workload.threads}

    assert len(tools) == TOOL_GROUPS
    assert len(projects) > 100


def test_sub_agents_begin_as_their_parent_does(workload):
    parent = next(t for t in workload.threads if t.calls)
    called = [workload.threads[n] for group in parent.calls.values() for n in group]

    n_common = TOOLS_TOKENS // 24 // BLOCK_TOKENS + 4
    assert all((c.contexts[0][:n_common] == parent.contexts[0][:n_common]).all() for c in called)
    assert all(c.started_at_s is None for c in called)


def a_thread(n_turns, **more):
    turn = AgentTurn(prompt_tokens=160, output_tokens=4, think_s=1.0, context=0)
    return Thread((turn,) * n_turns, (np.arange(10, dtype=np.uint64),), **more)


def test_a_parent_goes_on_when_the_sub_agent_it_waits_for_has_ended():
    session = [
        a_thread(3, started_at_s=0.0, calls={0: (1, 2)}),
        a_thread(1),
        a_thread(2, resumes=(0, 1)),
    ]
    workload = Threads.of([session], stretch=2.0, min_think_s=0.1)
    (first,) = workload
    short, long = workload.next_turns(first, 10.0)

    assert (short.session, long.session) == (1, 2)
    assert short.at_s == long.at_s == 12.0
    assert workload.next_turns(short, 13.0) == ()
    (long,) = workload.next_turns(long, 14.0)
    (back,) = workload.next_turns(long, 20.0)
    assert (back.session, back.turn, back.at_s) == (0, 1, 22.0)
    (last,) = workload.next_turns(back, 23.0)
    assert workload.next_turns(last, 25.0) == ()


def test_small_fleets_have_the_caches_in_their_names():
    unequal, equal = find_fleet("unequal-48k").specs, find_fleet("equal-96k").specs

    assert [spec.kv_tokens for spec in unequal] == [48_000] * 4
    assert [spec.kv_tokens for spec in equal] == [96_000] * 4
    assert len({spec.cost for spec in unequal}) == 4
    assert len(set(equal)) == 1


def test_engines_with_cuda_graphs_are_those_without_but_quicker_by_the_token():
    fleets = find_fleet("unequal-48k").specs, find_fleet("graphs-48k").specs

    for eager, graphs in zip(*fleets, strict=True):
        assert (graphs.accelerator, graphs.kv_tokens) == (eager.accelerator, eager.kv_tokens)
        assert graphs.cost.floor_ms < eager.cost.floor_ms
