"""Levels of priority: Envoy's tables, and what they come to in a fleet."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import a_request, a_router
from lodestar_extproc.endpoint import Endpoint, Level
from lodestar_extproc.fleet.levels import LevelCount, columns_of_a_level, drawn, shares


def percents(*levels: LevelCount) -> list[int]:
    found = [0] * len(levels)
    for share in shares(levels):
        found[share.level] += share.percent
    return found


@pytest.mark.parametrize(
    ("healthy", "expected"),
    [
        # The table of "Priority levels" in Envoy's documentation, P1 wholly healthy.
        ((100, 100), [100, 0]),
        ((72, 100), [100, 0]),
        ((71, 100), [99, 1]),
        ((50, 100), [70, 30]),
        ((25, 100), [35, 65]),
        ((0, 100), [0, 100]),
        # Its table of three levels.
        ((100, 100, 100), [100, 0, 0]),
        ((50, 60, 100), [70, 30, 0]),
        ((30, 40, 100), [42, 56, 2]),
        ((0, 0, 100), [0, 0, 100]),
        # Where all of them together cannot serve all requests, by what each can.
        ((20, 20, 10), [40, 40, 20]),
    ],
)
def test_requests_are_shared_out_as_envoys_documentation_says(healthy, expected):
    # 20, 20 and 10 percent: the documentation's numbers leave panic out.
    levels = [LevelCount(100, n, panic_ratio=0.0) for n in healthy]

    assert percents(*levels) == expected


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        # "Panic threshold": by size where every level is below it.
        ((LevelCount(10, 0), LevelCount(30, 0)), [25, 75]),
        ((LevelCount(10, 2), LevelCount(10, 1)), [50, 50]),
        ((LevelCount(10, 0), LevelCount(10, 10)), [0, 100]),
        ((LevelCount(10, 0), LevelCount(10, 6)), [0, 100]),
        ((LevelCount(3, 0), LevelCount(3, 0), LevelCount(3, 0)), [34, 33, 33]),
    ],
)
def test_nobody_is_spared_where_too_few_are_up_on_every_level(levels, expected):
    assert percents(*levels) == expected


def test_degraded_endpoints_get_what_no_healthy_one_can_serve():
    dealt = shares([LevelCount(4, 1, 3), LevelCount(4, 1)])

    assert [(s.level, s.percent, s.to_degraded) for s in dealt] == [
        (0, 35, False),
        (1, 35, False),
        (0, 30, True),
    ]


def test_the_overprovisioning_is_the_clusters():
    assert percents(LevelCount(10, 8, overprovisioning=1.0), LevelCount(1, 1)) == [80, 20]
    assert percents(LevelCount(10, 5, overprovisioning=2.0), LevelCount(1, 1)) == [100, 0]


counts = st.integers(0, 8).flatmap(
    lambda n: st.tuples(st.integers(0, n), st.floats(1.0, 3.0), st.floats(0.0, 1.0)).flatmap(
        lambda made: st.integers(0, n - made[0]).map(
            lambda degraded: LevelCount(n, made[0], degraded, made[1], made[2])
        )
    )
)


@given(st.lists(counts, min_size=1, max_size=5).filter(lambda levels: any(c.n for c in levels)))
def test_all_requests_go_somewhere_and_only_where_an_endpoint_is(levels):
    dealt = shares(levels)

    assert sum(share.percent for share in dealt) == 100
    assert all(levels[share.level].n for share in dealt) or all(c.n == 0 for c in levels[:1])


def test_draws_fall_into_shares_as_often_as_they_are_large():
    dealt, rng = shares([LevelCount(4, 2), LevelCount(2, 2)]), random.Random(0)
    levels = [drawn(dealt, rng.random()).level for _ in range(2000)]

    assert levels.count(1) / 2000 == pytest.approx(0.3, abs=0.04)


def endpoints(*priorities: int) -> list[Endpoint]:
    return [Endpoint(f"10.0.0.{i}:80", level=Level(p)) for i, p in enumerate(priorities)]


@pytest.mark.parametrize(
    ("priorities", "up", "expected"),
    [
        ((0, 0, 1), {0, 1, 2}, [0, 1]),
        ((1, 0, 1), {0, 1, 2}, [1]),
        ((0, 0, 1), {2}, [2]),
        ((0, 0, 1), set(), [0, 1]),
        ((5, 5), {1}, [1]),
    ],
)
def test_a_request_may_go_to_one_level_and_there_to_who_is_up(priorities, up, expected):
    fleet = endpoints(*priorities)
    columns = columns_of_a_level(fleet, range(len(fleet)), up.__contains__, 0.0)

    assert columns == expected


def a_router_of(*priorities, **settings):
    router = a_router(len(priorities), **settings)
    router.set_endpoints(
        replace(e, level=Level(p)) for e, p in zip(router.fleet.endpoints, priorities, strict=True)
    )
    return router


def chosen(router, n=100, at_s=0.0):
    decisions = [router.route(a_request(), request_id="", at_s=at_s) for _ in range(n)]
    return [d.address for d in decisions]


@pytest.mark.parametrize("policy", ["random", "round_robin", "least_request", "learned"])
def test_the_backup_gets_nothing_while_the_first_level_serves(policy):
    router = a_router_of(0, 0, 1, policy=policy)
    first = {e.address for e in router.fleet.endpoints[:2]}

    assert set(chosen(router)) <= first


def test_the_backup_serves_what_the_first_level_cannot():
    router = a_router_of(0, 0, 1, policy="random", seed=0)
    down, _, backup = (e.address for e in router.fleet.endpoints)
    for _ in range(2):
        router.fleet.record_probe(down, False, 0.0)
    addresses = chosen(router, 1000)

    assert down not in addresses
    assert addresses.count(backup) / 1000 == pytest.approx(0.3, abs=0.05)


def test_the_backup_serves_all_while_the_first_level_is_down():
    router = a_router_of(0, 0, 1, policy="random")
    *first, backup = (e.address for e in router.fleet.endpoints)
    for address in first:
        for _ in range(2):
            router.fleet.record_probe(address, False, 0.0)
    assert set(chosen(router)) == {backup}
    for address in first:
        router.fleet.record_probe(address, True, 0.0)
    assert backup not in chosen(router, at_s=1.0)


def test_a_pool_of_one_level_draws_no_chance_for_it():
    one, other = a_router(3, policy="random", seed=1), a_router_of(7, 7, 7, policy="random", seed=1)

    assert chosen(one) == chosen(other)
