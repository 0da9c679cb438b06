"""Replicas behind a real Envoy are restarted one after the other, or one dies: no client fails."""

from __future__ import annotations

import asyncio
import time

import pytest

from redis_process import RedisProcess, needs_redis
from replica_stack import ReplicaStack, running_replicas
from steady_load import SteadyLoad
from waiting import until

pytest.importorskip("redis", reason="no client of Redis: pip install 'lodestar-extproc[redis]'")
pytestmark = [needs_redis, pytest.mark.long, pytest.mark.timeout(240)]
GONE_FROM_WITHIN_S = 5.0
"""A second on a quiet machine, which is what Envoy's checks take; a busy one is late itself."""
QUIET_S = 1.0
"""Without a failure for so long, Envoy asks only those who live."""
IN_VAIN = r"ext_proc\.(failure_mode_allowed|message_timeouts|streams_failed)"


async def in_vain(stack: ReplicaStack) -> int:
    """Streams that Envoy's filters opened in vain so far."""
    return sum((await stack.envoy.stats(IN_VAIN)).values())


async def all_shared(stack: ReplicaStack) -> bool:
    pools = [await each.pool() for each in stack.replicas]
    return all(p["share"] == "shared" and p["peers"] == len(pools) - 1 for p in pools)


async def ask_more(load: SteadyLoad, n: int = 60) -> None:
    ended = len(load.ended)
    await until(lambda: len(load.ended) >= ended + n)


async def test_every_replica_is_restarted_under_load_and_each_comes_back_warm(tmp_path):
    with RedisProcess(tmp_path) as redis:
        await redis.ready()
        options = {"share": redis.url, "drain": "2"}
        async with running_replicas(tmp_path, 2, edit=lambda _: None, **options) as stack:
            await until(lambda: all_shared(stack))
            async with SteadyLoad(stack.envoy.url) as load:
                await ask_more(load, 120)
                for replica in stack.replicas:
                    assert await replica.terminate() == 0
                    await ask_more(load)
                    replica.start()
                    await replica.ready()
                    await until(lambda: all_shared(stack))
                    await until(lambda replica=replica: knows(replica))
                    await ask_more(load)
            await until(stack.nothing_is_open)

    assert not load.problems


async def knows(replica) -> bool:
    """It has learned, or been told, more than a cold one would have by now."""
    return (await replica.pool())["learner"]["samples"] > 50


async def test_where_a_replica_dies_the_other_decides_all_within_a_second_or_so(tmp_path):
    with RedisProcess(tmp_path) as redis:
        await redis.ready()
        async with running_replicas(tmp_path, 2, edit=lambda _: None, share=redis.url) as stack:
            await until(lambda: all_shared(stack))
            async with SteadyLoad(stack.envoy.url, n_clients=16) as load:
                await ask_more(load)
                stack.replicas[0].kill()
                gone_s = await last_failure_s(stack)
                await ask_more(load)
        print(f"the last stream that failed was {gone_s:.2f} s after the death")

    assert not load.problems
    assert gone_s < GONE_FROM_WITHIN_S


async def last_failure_s(stack: ReplicaStack) -> float:
    """Seconds until the last stream that Envoy opened in vain, once there are no more."""
    began_s = last_s = time.monotonic()
    n_failed = await in_vain(stack)
    while time.monotonic() - last_s < QUIET_S:
        await asyncio.sleep(0.02)
        n_now = await in_vain(stack)
        if n_now != n_failed:
            n_failed, last_s = n_now, time.monotonic()
    return last_s - began_s
