"""Sharing through a real Redis, which is killed, frozen, flushed, filled and lied to."""

from __future__ import annotations

import pytest

from lodestar_extproc.sharing.sharer import ShareState
from redis_process import RedisProcess, needs_redis
from sharing_routers import SharingRouter, sharing_through
from waiting import until

pytest.importorskip("redis", reason="no client of Redis: pip install 'lodestar-extproc[redis]'")
pytestmark = [needs_redis, pytest.mark.long]


@pytest.fixture
async def redis(tmp_path):
    with RedisProcess(tmp_path) as process:
        await process.ready()
        yield process


def all_are(replicas: list[SharingRouter], state: ShareState) -> bool:
    return all(each.state is state for each in replicas)


async def shared(replicas: list[SharingRouter]) -> None:
    """Wait for it."""
    others = len(replicas) - 1
    await until(lambda: all(each.sharer.n_peers == others for each in replicas))
    await until(lambda: all_are(replicas, ShareState.SHARED))


async def test_one_replica_sees_what_another_has_in_flight_and_that_it_ends(redis):
    async with sharing_through(redis.url) as (a, b):
        await shared([a, b])
        decision = a.send()
        await until(lambda: sum(b.in_flight()) == 1)
        assert b.in_flight() == a.in_flight()

        a.first_token(decision)
        a.end(decision)
        await until(lambda: sum(b.in_flight()) == 0)
        assert b.router.fleet.n_in_flight == 0


async def test_a_joiner_learns_what_is_in_flight(redis):
    async with sharing_through(redis.url, 1) as (a,):
        await until(lambda: a.state is ShareState.SHARED)
        for i in range(5):
            a.send(b"%d" % i * 4000)
        async with sharing_through(redis.url, 1, first=9) as (late,):
            await until(lambda: sum(late.in_flight()) == 5)


async def test_a_replica_that_dies_takes_its_load_with_it(redis):
    async with sharing_through(redis.url, 1) as (a,):
        async with sharing_through(redis.url, 1, first=9) as (b,):
            await until(lambda: a.sharer.n_peers == 1)
            b.send()
            await until(lambda: sum(a.in_flight()) == 1)
        await until(lambda: sum(a.in_flight()) == 0, 5.0)
        assert a.sharer.n_peers == 0


@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_a_store_that_goes_leaves_each_alone_and_comes_back_without_a_restart(redis, fault):
    async with sharing_through(redis.url) as replicas:
        a, b = replicas
        await shared(replicas)
        kept = a.send()
        await until(lambda: sum(b.in_flight()) == 1)

        redis.kill() if fault == "killed" else redis.freeze()
        await until(lambda: all_are(replicas, ShareState.ALONE))
        assert sum(b.in_flight()) == 0  # what it cannot hear of is not counted for ever
        a.send(b"y" * 4000)  # decides all the same

        redis.start() if fault == "killed" else redis.thaw()
        await shared(replicas)
        await until(lambda: sum(b.in_flight()) == 2)
        a.end(kept)
        await until(lambda: sum(b.in_flight()) == 1)


async def test_a_store_that_is_flushed_full_and_stripped_of_its_clients_is_as_before(redis):
    async with sharing_through(redis.url) as replicas:
        a, b = replicas
        await shared(replicas)

        redis.ask("FLUSHALL")
        redis.ask("CONFIG", "SET", "maxmemory", "1")
        redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
        a.send()
        await until(lambda: sum(b.in_flight()) == 1)
        await shared(replicas)


async def test_garbage_on_the_channel_is_counted_and_changes_nothing(redis):
    async with sharing_through(redis.url) as replicas:
        a, b = replicas
        await shared(replicas)
        a.send()
        await until(lambda: sum(b.in_flight()) == 1)

        for garbage in ("nonsense", "\x08\x7f", ""):
            redis.ask("PUBLISH", "lodestar:pool:frames", garbage)
        await until(lambda: b.told.counts.get("unreadable", 0) >= 3)
        await until(lambda: b.state is ShareState.DEGRADED)
        assert sum(b.in_flight()) == 1


async def test_a_wrong_password_is_said_without_the_password(tmp_path, caplog):
    with RedisProcess(tmp_path, "--requirepass", "right") as redis:
        await redis.ready()
        async with sharing_through(f"redis://:wrong-secret@{redis.address}", 1) as (a,):
            await until(lambda: "is away" in caplog.text and "uthenticat" in caplog.text)
            assert a.state is ShareState.ALONE
            a.send()
        assert "wrong-secret" not in caplog.text
        async with sharing_through(f"redis://:right@{redis.address}") as replicas:
            await shared(replicas)


async def test_replicas_of_other_prefixes_do_not_meet(redis):
    async with (
        sharing_through(f"{redis.url}?prefix=one", 1) as (a,),
        sharing_through(f"{redis.url}?prefix=two", 1, first=9) as (b,),
    ):
        await until(lambda: a.state is b.state is ShareState.SHARED)
        assert (a.sharer.n_peers, b.sharer.n_peers) == (0, 0)
