"""Follower: reads one engine's KV events over ZeroMQ; asks again for what was missed.

It knows sockets and numbers; what events mean is for whoever is told of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgpack
import zmq
import zmq.asyncio

from lodestar_extproc.fleet.kv_events.events import (
    SLICE_BLOCKS,
    AllCleared,
    CacheEvent,
    EventBatch,
    read_batch,
)
from lodestar_extproc.fleet.kv_events.following import EventCounts
from lodestar_extproc.fleet.kv_events.sequence import EventSequence, Place
from lodestar_extproc.kv_events_source import KvEventsSource

MAX_MESSAGE_BYTES = 4 << 20
"""A step of 100,000 tokens has one. Of a longer one the connection is closed by ZeroMQ, and what
it said is missed."""
MAX_QUEUED_MESSAGES = 1000
"""That wait to be read; of more the engine drops some, which are then asked for again."""
REPLAY_TIMEOUT_S = 2.0
"""For each message that is said again; vLLM looks every 0.1 s whether anybody asks."""
MAX_REPLAYED = 20_000
"""Messages: twice what vLLM keeps."""
_NUMBER_BYTES = 8  # big-endian, as vLLM writes it
_LONGEST_RECONNECT_MS = 2000  # an engine takes longer to start
_END = -1
"""Number of the message that ends a replay."""


class EventSink(Protocol):
    """Who is told of events."""

    def record_cache_events(self, address: str, events: Sequence[CacheEvent], at_s: float) -> None:
        """They came, in their order."""

    def cache_events_lost(self, address: str, *, restarted: bool) -> None:
        """What came before is not all; or its cache was emptied meanwhile."""


@dataclass(slots=True)
class Follower:
    """Follows from the first message that is still kept; `run` until cancelled.

    Attributes:
        counts: of what came.
    """

    address: str
    source: KvEventsSource
    sink: EventSink
    counts: EventCounts
    context: zmq.asyncio.Context
    clock: Callable[[], float] = time.monotonic
    _sequence: EventSequence = field(default_factory=EventSequence)
    _was_away: bool = False
    _is_another: bool = False

    async def run(self) -> None:
        """Read until cancelled."""
        self._sequence.begin()
        self.sink.cache_events_lost(self.address, restarted=False)
        with closing(_socket(self.context, zmq.SUB)) as socket:
            socket.setsockopt_string(zmq.SUBSCRIBE, self.source.topic)
            monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            socket.connect(self.source.url)
            watching = asyncio.create_task(self._watch(monitor))
            try:
                await self._say_again(0)
                while True:
                    await self._heed(await socket.recv_multipart())
            finally:
                watching.cancel()
                socket.disable_monitor()

    async def _watch(self, monitor: zmq.asyncio.Socket) -> None:
        """Note that the engine was away: it may be another one that comes back."""
        with closing(monitor):
            while True:
                await monitor.recv_multipart()
                self._was_away = True

    async def _heed(self, frames: Sequence[bytes]) -> None:
        """One live message."""
        message = self._read(frames)
        if message is None:
            return
        number, batch = message
        place = self._sequence.place(number, batch.at_s)
        known_before = self._sequence.last is not None
        if place is Place.RESTARTED:
            await self._begin_anew()
        elif place is Place.AFTER_GAP:
            self.counts.gaps += 1
            await self._fill(number)
        elif place is Place.NEXT and self._was_away and known_before and self.source.replay_url:
            await self._fill(number)
        self._was_away = False
        if self._sequence.place(number, batch.at_s) is not Place.KNOWN:
            await self._take(number, batch)

    def _read(self, frames: Sequence[bytes]) -> tuple[int, EventBatch] | None:
        """Number and content; None where it is no message of events, which is counted."""
        self.counts.messages += 1
        if len(frames) < 2 or len(frames[-2]) != _NUMBER_BYTES:
            self.counts.malformed += 1
            return None
        try:
            return int.from_bytes(frames[-2], "big"), read_batch(frames[-1], _unpack)
        except ValueError:
            # What it said is missed, as its number will tell with the next one.
            self.counts.malformed += 1
            return None

    async def _take(self, number: int, batch: EventBatch) -> None:
        self._sequence.read(number, batch.at_s)
        now_s, n_blocks, some = self.clock(), 0, list[CacheEvent]()
        for event in batch.events:
            some.append(event)
            self.counts.events += 1
            n_blocks += 1 if isinstance(event, AllCleared) else len(event.hashes)
            if n_blocks >= SLICE_BLOCKS:
                self.sink.record_cache_events(self.address, some, now_s)
                n_blocks, some = 0, []
                await asyncio.sleep(0)
        self.sink.record_cache_events(self.address, some, now_s)
        # A message that has come already is read without waiting: others get their turn here.
        await asyncio.sleep(0)

    # -- what was missed ------------------------------------------------------------------------

    async def _fill(self, number: int) -> None:
        """Read what came between the last message and *number*; without it, begin anew there."""
        last = self._sequence.last
        same = last is not None and await self._say_again(last)
        reached = self._sequence.last
        if same and reached is not None and number <= reached + 1:
            return
        if self._is_another:
            await self._begin_anew()
            return
        self._forget(restarted=False)

    async def _begin_anew(self) -> None:
        self.counts.restarts += 1
        self._forget(restarted=True)
        await self._say_again(0)

    def _forget(self, *, restarted: bool) -> None:
        self._sequence.begin()
        self.sink.cache_events_lost(self.address, restarted=restarted)

    async def _say_again(self, first: int) -> bool:
        """Read messages from *first* on again, where they are kept; False where *first* is not.

        If it was read before, it has to be the same again.
        """
        self._is_another, begun = False, False
        if self.source.replay_url is None:
            return False
        async for frames in self._replayed(first):
            message = self._read(frames)
            if message is None:
                break
            number, batch = message
            if not begun and self._sequence.last is not None:
                if not self._sequence.confirms(number, batch.at_s):
                    self._is_another = number == first
                    break
                begun = True
                continue
            if begun and self._sequence.place(number, batch.at_s) is not Place.NEXT:
                self._forget(restarted=False)
            begun = True
            await self._take(number, batch)
        return begun

    async def _replayed(self, first: int) -> AsyncIterator[Sequence[bytes]]:
        with closing(_socket(self.context, zmq.DEALER)) as socket:
            # What waits to be read beyond a limit is dropped by the engine's socket, a ROUTER.
            socket.setsockopt(zmq.RCVHWM, MAX_REPLAYED)
            socket.connect(self.source.replay_url or "")
            # A DEALER writes the empty frame that a REQ, whom vLLM expects, has for itself.
            await socket.send_multipart([b"", first.to_bytes(_NUMBER_BYTES, "big")])
            with suppress(TimeoutError):
                for _ in range(MAX_REPLAYED):
                    async with asyncio.timeout(REPLAY_TIMEOUT_S):
                        frames = await socket.recv_multipart()
                    if len(frames) < 2 or _is_end(frames[-2]):
                        return
                    yield frames


def _is_end(number: bytes) -> bool:
    return int.from_bytes(number, "big", signed=True) == _END


def _socket(context: zmq.asyncio.Context, kind: int) -> zmq.asyncio.Socket:
    socket = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.IPV6, 1)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
    socket.setsockopt(zmq.RCVHWM, MAX_QUEUED_MESSAGES)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, _LONGEST_RECONNECT_MS)
    return socket


def _unpack(payload: bytes) -> Any:
    return msgpack.unpackb(payload, strict_map_key=False)
