"""A rack against its engines one by one."""

import math
import random

import pytest

from lodestar_extproc.simulator.engine import Engine
from lodestar_extproc.simulator.rack import Rack
from simulated_engines import STEP_S, a_spec, submit


def busy_engines(n: int = 3, n_requests: int = 12, **changes) -> list[Engine]:
    """Noisy engines of unequal load, always the same."""
    rng, engines = random.Random(1), []
    for seed in range(n):
        engine = Engine(a_spec(**changes), seed)
        for request in range(n_requests - 3 * seed):
            submit(engine, request, rng.randrange(1, 400), rng.randrange(1, 9), at_s=request * 0.02)
        engines.append(engine)
    return engines


def one_by_one(engines, until_s):
    return [(i, *event) for i, engine in enumerate(engines) for event in engine.advance(until_s)]


def test_all_advance_as_each_would_alone():
    together, alone = busy_engines(), busy_engines()
    rack = Rack(together)
    for until_s in (0.0, 0.013, 0.2, 0.2, 0.5, math.inf):
        assert rack.next_event_s() == min(e.next_event_s() for e in alone)
        assert rack.advance(until_s) == one_by_one(alone, until_s)

    assert [e.in_flight() for e in together] == [0, 0, 0]
    assert rack.next_event_s() == math.inf


def test_more_happens_than_there_is_room_for_at_once():
    together = busy_engines(n=5, n_requests=13, max_live_requests=13)
    alone = busy_engines(n=5, n_requests=13, max_live_requests=13)

    assert Rack(together).advance(math.inf) == one_by_one(alone, math.inf)


def test_gauges_are_those_of_each():
    engines = busy_engines()
    rack = Rack(engines)
    rack.advance(0.3)
    shown = [engine.gauges() for engine in engines]

    assert rack.gauges() == [
        [
            *(g.running, g.waiting, g.kv_usage_ratio, g.generated_tokens),
            *(g.prefix_query_tokens, g.prefix_hit_tokens),
        ]
        for g in shown
    ]


def test_an_engine_that_grows_or_restarts_stays_in_its_place():
    first, second = Engine(a_spec(kv_blocks=10_000)), Engine(a_spec())
    rack = Rack([first, second])
    for request in range(200):
        submit(second, request, 16)
    second.restart(seed=1)
    for request in range(200):
        submit(first, request, 160)
    submit(second, 7, 16)

    assert len(rack.advance(math.inf)) == 2 * 200 + 2
    assert first.in_flight() == second.in_flight() == 0


def test_a_request_handed_to_an_engine_is_due_in_the_rack():
    engine = Engine(a_spec())
    rack = Rack([engine])
    submit(engine, 3, 16, at_s=1.0)

    assert rack.next_event_s() == 1.0
    assert rack.advance(1.0) == []
    assert rack.next_event_s() == pytest.approx(1.0 + STEP_S)
