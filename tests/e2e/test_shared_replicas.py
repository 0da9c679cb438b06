"""Two real replicas behind a real Envoy share through a real Redis, which dies under load."""

from __future__ import annotations

import pytest

from redis_process import RedisProcess, needs_redis
from replica_stack import ReplicaStack, running_replicas
from steady_load import SteadyLoad
from waiting import until

pytest.importorskip("redis", reason="no client of Redis: pip install 'lodestar-extproc[redis]'")
pytestmark = [needs_redis, pytest.mark.long]


async def states(stack: ReplicaStack) -> set[str]:
    return {(await each.pool())["share"] for each in stack.replicas}


async def both_are(stack: ReplicaStack, state: str) -> bool:
    return await states(stack) == {state}


async def in_flight(stack: ReplicaStack) -> list[float]:
    """As each replica counts them, its own and the other's."""
    pools = [await each.pool() for each in stack.replicas]
    return [
        sum(e["prefill_requests"] + e["decode_requests"] for e in pool["endpoints"])
        for pool in pools
    ]


async def nothing_in_flight(stack: ReplicaStack) -> bool:
    return await in_flight(stack) == [0, 0]


async def ask_more(load: SteadyLoad, n: int = 30) -> None:
    ended = len(load.ended)
    await until(lambda: len(load.ended) >= ended + n)


@pytest.mark.timeout(180)
async def test_no_client_fails_and_both_count_alike_while_the_store_dies_and_returns(tmp_path):
    with RedisProcess(tmp_path) as redis:
        await redis.ready()
        async with running_replicas(tmp_path, 2, share=redis.url) as stack:
            await until(lambda: both_are(stack, "shared"))
            async with SteadyLoad(stack.envoy.url) as load:
                await ask_more(load)
                redis.kill()
                await until(lambda: both_are(stack, "alone"))
                await ask_more(load)
                redis.start()
                await until(lambda: both_are(stack, "shared"))
                await ask_more(load)
            await until(stack.nothing_is_open)
            await until(lambda: nothing_in_flight(stack))
            learned = [(await each.pool())["learner"]["samples"] for each in stack.replicas]

        assert not [each for each in load.ended if each.problem]
        # Each knows most of what both learned; sums in the frames that were lost are not told again.
        assert min(learned) > 0.6 * len([each for each in load.ended if each.streamed])


@pytest.mark.timeout(180)
async def test_a_replica_that_is_killed_under_load_is_not_counted_for_ever(tmp_path):
    with RedisProcess(tmp_path) as redis:
        await redis.ready()
        async with running_replicas(tmp_path, 2, share=redis.url) as stack:
            await until(lambda: both_are(stack, "shared"))
            async with SteadyLoad(stack.envoy.url) as load:
                await ask_more(load)
                stack.replicas[1].kill()
                await until(lambda: _hears_of_nobody(stack), 10.0)
                await ask_more(load)
            # Its own alone are left: of some the other heard the end, and died with it.
            await until(lambda: _counts_its_own_alone(stack))

    assert not [each for each in load.ended if each.problem]


async def _hears_of_nobody(stack: ReplicaStack) -> bool:
    return (await stack.replicas[0].pool())["peers"] == 0


async def _counts_its_own_alone(stack: ReplicaStack) -> bool:
    pool = await stack.replicas[0].pool()
    counted = sum(e["prefill_requests"] + e["decode_requests"] for e in pool["endpoints"])
    return counted == pool["open_decisions"]
