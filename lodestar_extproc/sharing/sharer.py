"""Sharer: carries one pool's frames to and from the store, and says how well that goes.

Nothing waits for it: a decision reads local memory. Whatever the store does, frames leave when it
takes them again, and the pool goes on alone meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from typing import Protocol

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from lodestar_extproc.config.share import ShareTarget
from lodestar_extproc.generated.lodestar.v1.replicas_pb2 import Frame
from lodestar_extproc.sharing.hub import HubStore
from lodestar_extproc.sharing.shared_pool import SharedPool
from lodestar_extproc.sharing.store import TIMEOUT_S, FrameStore, Store, StoreError

ECHO_FRAMES = 3
"""Our own frames come back from the store; by then they should."""
LEAST_ECHO_S = 0.1
"""However short the frames: an event loop may be late by as much."""
TROUBLE_S = 5.0
"""For so long after a lost or unreadable frame sharing counts as degraded: as long as is seen."""
MAX_FRAME_BYTES = 16 * 2**20
"""A frame in which 5,000 requests of 400 blocks left. A larger one is nobody's of ours."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 2.0
"""Between two attempts at a store that is away; doubled each time."""
_log = logging.getLogger(__name__)


class ShareState(StrEnum):
    """How well a pool is shared."""

    SHARED = "shared"
    """What others see is known here within a few frames."""
    DEGRADED = "degraded"
    """Frames are late, or some were lost: a part of what others see is not known here."""
    ALONE = "alone"
    """The store is away: nothing is known of others, nor to them."""


class ShareListener(Protocol):
    """Who is told of it: metrics."""

    def share_state(self, pool: str, state: ShareState, n_peers: int) -> None: ...

    def frames(self, pool: str, result: str, n: int = 1) -> None:
        """So many frames were `sent`, `received`, `lost` or `unreadable`."""


class Sharer:
    """Runs until cancelled.

    Args:
        clock: monotonic seconds, the router's.

    Attributes:
        state: how well it goes.
        target: through what.
    """

    def __init__(
        self,
        pool: str,
        target: ShareTarget,
        shared: SharedPool,
        listener: ShareListener,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state = ShareState.ALONE
        self._pool = pool
        self.target = target
        self._shared = shared
        self._listener = listener
        self._clock = clock
        self._echo_at_s = -TROUBLE_S
        self._trouble_at_s = -TROUBLE_S
        self._n_lost = 0
        self._problem = "not connected yet"
        self._told_problem = ""

    @property
    def frame_s(self) -> float:
        """Between two frames."""
        return self.target.frame_s

    @property
    def n_peers(self) -> int:
        """Other replicas that are heard of now."""
        return len(self._shared.inbox.peers)

    async def run(self) -> None:
        """Share for as long as the store lets us, and try again when it does not."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            group.create_task(self._stay_connected())

    # -- the store --------------------------------------------------------------------------------

    async def _stay_connected(self) -> None:
        channel = f"{self.target.prefix}:{self._pool}:frames"
        attempt, wait_s = 0, FIRST_WAIT_S
        while True:
            began_s = self._clock()
            try:
                async with _store(self.target, channel, attempt) as store:
                    await self._share(store)
            except (StoreError, TimeoutError) as error:
                self._problem = str(error) or "it does not answer"
            if _is_cancelled():
                # A client that fails to connect at that very moment swallows it.
                raise asyncio.CancelledError
            self._shared.cut_off()
            attempt += 1
            lasted = self._clock() - began_s > LONGEST_WAIT_S
            wait_s = FIRST_WAIT_S if lasted else min(2 * wait_s, LONGEST_WAIT_S)
            await asyncio.sleep(wait_s)

    async def _share(self, store: FrameStore) -> None:
        """Until one way or the other breaks.

        Raises:
            StoreError, TimeoutError: it broke.
        """
        tasks = [asyncio.create_task(self._publish(store)), asyncio.create_task(self._hear(store))]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            store.end()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        ended.pop().result()

    async def _publish(self, store: FrameStore) -> None:
        news = asyncio.Event()
        self._shared.outbox.on_news = news.set
        while True:
            news.clear()
            data = self._shared.frame(self._clock()).SerializeToString()
            async with asyncio.timeout(TIMEOUT_S):
                await store.publish(data)
            self._listener.frames(self._pool, "sent")
            with suppress(TimeoutError):
                async with asyncio.timeout(self.target.frame_s):
                    await news.wait()

    async def _hear(self, store: FrameStore) -> None:
        heard_at_s = self._clock()
        while self._clock() - heard_at_s < 2 * TIMEOUT_S:
            data = await store.next(TIMEOUT_S)
            if data is not None:
                heard_at_s = self._clock()
                self._read(data, heard_at_s)
        raise TimeoutError("our own frames do not come back")

    def _read(self, data: bytes, at_s: float) -> None:
        frame = Frame()
        try:
            frame.ParseFromString(data if len(data) <= MAX_FRAME_BYTES else b"")
            taken = self._shared.receive(frame, at_s)
        except DecodeError:
            taken = False
        if not taken:
            self._trouble_at_s = at_s
            self._listener.frames(self._pool, "unreadable")
        elif self._shared.is_own(frame):
            self._echo_at_s = at_s
        else:
            self._listener.frames(self._pool, "received")

    # -- how well it goes -------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Give up silent replicas, and tell how well it goes, once a frame."""
        frame_s = self.target.frame_s
        while True:
            asleep_at_s = self._clock()
            await asyncio.sleep(frame_s)
            at_s = self._clock()
            # After a stall of our own their frames lie unread: the silence is ours.
            if at_s - asleep_at_s < 2 * frame_s:
                self._shared.inbox.age(at_s)
            self._tell(at_s)

    def _tell(self, at_s: float) -> None:
        lost, self._n_lost = self._shared.inbox.n_lost - self._n_lost, self._shared.inbox.n_lost
        if lost:
            self._trouble_at_s = at_s
            self._listener.frames(self._pool, "lost", lost)
        before, self.state = self.state, self._judge(at_s)
        self._listener.share_state(self._pool, self.state, self.n_peers)
        if self.state is ShareState.ALONE:
            self._warn_alone()
        elif self.state is not before:
            self._told_problem = ""
            _log.info(
                "pool %s: %s with %d other replicas through %s",
                self._pool,
                self.state,
                self.n_peers,
                self.target,
            )

    def _judge(self, at_s: float) -> ShareState:
        silent_s = at_s - self._echo_at_s
        if silent_s > 2 * TIMEOUT_S:
            return ShareState.ALONE
        late = silent_s > max(ECHO_FRAMES * self.target.frame_s, LEAST_ECHO_S)
        if late or self._shared.inbox.incomplete or at_s - self._trouble_at_s < TROUBLE_S:
            return ShareState.DEGRADED
        return ShareState.SHARED

    def _warn_alone(self) -> None:
        """Once for each reason, until sharing works again."""
        if self._problem != self._told_problem:
            self._told_problem = self._problem
            _log.warning(
                "pool %s: alone, each replica for itself, for the store %s is away: %s",
                self._pool,
                self.target,
                self._problem,
            )


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _store(target: ShareTarget, channel: str, attempt: int) -> FrameStore:
    return HubStore(target.hub, channel) if target.hub else Store(target, channel, attempt)
