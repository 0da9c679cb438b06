"""Engines that publish on real sockets: what is heard, what was missed, and who began anew."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from kv_publisher import KvPublisher, removed, stored
from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.fleet.kv_events.events import BlocksRemoved, CacheEvent
from lodestar_extproc.fleet.kv_events.following import EventCounts, KvFollowing
from lodestar_extproc.kv_events_source import KvEventsSource
from lodestar_extproc.supervision import Supervisor
from waiting import until

AT = "127.0.0.1:8000"


@dataclass
class Heard:
    """What the fleet would be told."""

    events: list[CacheEvent] = field(default_factory=list)
    lost: list[bool] = field(default_factory=list)

    def record_cache_events(self, address: str, events: Sequence[CacheEvent], at_s: float) -> None:
        assert address == AT
        self.events += events

    def cache_events_lost(self, address: str, *, restarted: bool) -> None:
        assert address == AT
        self.lost.append(restarted)

    @property
    def hashes(self) -> list[int]:
        return [each for event in self.events for each in event.hashes]


@dataclass
class Following:
    """One follower at work."""

    heard: Heard
    following: KvFollowing
    failures: list[str]

    @property
    def counts(self) -> EventCounts:
        return self.following.counts[AT]

    async def has(self, *hashes: int) -> None:
        """Wait until these were heard, in this order."""
        await until(lambda: self.heard.hashes == list(hashes))


@asynccontextmanager
async def following(publisher: KvPublisher) -> AsyncIterator[Following]:
    heard, failures = Heard(), list[str]()
    parts = KvFollowing(heard, Supervisor(failures.append), time.monotonic)
    replay = publisher.replay_port
    source = KvEventsSource(
        f"tcp://127.0.0.1:{publisher.port}",
        None if replay is None else f"tcp://127.0.0.1:{replay}",
        "kv",
    )
    parts.set_endpoints([Endpoint(AT, kv_events=source), Endpoint("10.0.0.9:1")])
    running = asyncio.create_task(parts.run())
    try:
        yield Following(heard, parts, failures)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert failures == []


async def subscribed(publisher: KvPublisher, follower: Following) -> None:
    """Publish until anything is heard live: what came before a subscription did is not."""
    number = publisher.number

    async def heard() -> bool:
        await publisher.publish(removed([0]))
        await asyncio.sleep(0.01)
        return 0 in follower.heard.hashes[n_before:]

    n_before = len(follower.heard.hashes)
    await until(heard)
    assert publisher.number > number


async def live(publisher: KvPublisher, follower: Following, *hashes: int) -> None:
    """Publish *hashes* and wait until they are heard."""
    await publisher.publish(stored(hashes))
    await until(lambda: hashes[-1] in follower.heard.hashes)


async def test_what_was_published_before_is_asked_for():
    async with KvPublisher() as publisher:
        await publisher.publish(stored([1, 2]))
        await publisher.publish(stored([3], parent=2), removed([1]))
        async with following(publisher) as follower:
            await follower.has(1, 2, 3, 1)
            assert follower.heard.events[-1] == BlocksRemoved([1])
            assert follower.heard.lost == [False]


async def test_what_was_missed_is_asked_for_and_comes_once_in_order():
    async with KvPublisher() as publisher:
        await publisher.publish(stored([1]))
        async with following(publisher) as follower:
            await subscribed(publisher, follower)
            await publisher.publish(stored([2]), is_missed=True)
            await publisher.publish(stored([3]), is_missed=True)
            await live(publisher, follower, 4)
            assert [each for each in follower.heard.hashes if each] == [1, 2, 3, 4]
            assert follower.counts.gaps == 1
            assert follower.heard.lost == [False]


async def test_what_is_missed_and_not_kept_is_said_to_be_lost():
    async with KvPublisher(kept=2) as publisher:
        await publisher.publish(stored([1]))
        async with following(publisher) as follower:
            await subscribed(publisher, follower)
            for n in range(2, 6):
                await publisher.publish(stored([n]), is_missed=True)
            await live(publisher, follower, 6)
            assert 2 not in follower.heard.hashes
            assert follower.heard.lost == [False, False]


async def test_without_replay_a_gap_is_said_to_be_lost():
    async with KvPublisher(replay_port=None) as publisher, following(publisher) as follower:
        await subscribed(publisher, follower)
        await live(publisher, follower, 1)
        await publisher.publish(stored([2]), is_missed=True)
        await live(publisher, follower, 3)
        assert 2 not in follower.heard.hashes
        assert follower.counts.gaps == 1
        assert follower.heard.lost == [False, False]


async def test_an_engine_that_begins_anew_has_an_empty_cache():
    async with KvPublisher() as publisher:
        for n in range(1, 4):
            await publisher.publish(stored([n]))
        async with following(publisher) as follower:
            await subscribed(publisher, follower)
            await live(publisher, follower, 4)
            await publisher.__aexit__()
            async with KvPublisher(publisher.port, publisher.replay_port) as again:
                await again.publish(stored([11]))
                await subscribed(again, follower)
                await live(again, follower, 12)
                after = follower.heard.hashes[follower.heard.hashes.index(11) :]
                assert [each for each in after if each] == [11, 12]
                assert follower.heard.lost == [False, True]
                assert follower.counts.restarts == 1


@pytest.mark.parametrize("n_more", [0, 1, 3])
async def test_one_that_began_anew_and_has_told_as_much_or_more_is_found_out_too(n_more):
    async with KvPublisher() as publisher:
        await publisher.publish(stored([1]))
        async with following(publisher) as follower:
            await subscribed(publisher, follower)
            await live(publisher, follower, 2)
            number = publisher.number
            await publisher.__aexit__()
            async with KvPublisher(publisher.port, publisher.replay_port) as again:
                for n in range(number + n_more):
                    await again.publish(stored([100 + n]), is_missed=True)
                await subscribed(again, follower)
                await live(again, follower, 99)
                assert follower.heard.lost == [False, True]
                assert [each for each in follower.heard.hashes if each >= 100][:2] == [100, 101]


async def test_garbage_is_counted_and_what_it_said_counts_as_missed():
    async with KvPublisher(replay_port=None) as publisher, following(publisher) as follower:
        await subscribed(publisher, follower)
        await live(publisher, follower, 1)
        for frames in ([b"kv"], [b"kv", b"short", b"x"], [b"kv"] * 9):
            await publisher.frames(*frames)
        await publisher.say(b"\xc1 no msgpack")
        await live(publisher, follower, 2)
        await until(lambda: 2 in follower.heard.hashes)
        assert follower.counts.malformed == 4
        assert follower.heard.lost == [False, False]


async def test_a_flood_lets_others_have_their_turn():
    async with KvPublisher(replay_port=None) as publisher, following(publisher) as follower:
        await subscribed(publisher, follower)
        await live(publisher, follower, 1)
        hashes = list(range(10, 20_000))
        await publisher.publish(*(stored(hashes[at : at + 5000]) for at in range(0, 19_990, 5000)))
        n_events, most = len(follower.heard.events), 0
        while follower.heard.events[-1].hashes[-1] != hashes[-1]:
            await asyncio.sleep(0)
            most = max(most, len(follower.heard.events) - n_events)
            n_events = len(follower.heard.events)
        assert 1 <= most <= 2  # of `SLICE_BLOCKS` blocks at most


async def test_one_that_is_told_of_no_more_is_followed_no_more():
    async with KvPublisher() as publisher:
        await publisher.publish(stored([1]))
        async with following(publisher) as follower:
            await follower.has(1)
            follower.following.set_endpoints([Endpoint(AT)])
            await until(lambda: follower.heard.lost == [False, False])
            assert not follower.following.counts
