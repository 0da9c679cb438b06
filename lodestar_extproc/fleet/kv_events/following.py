"""KvFollowing: follows the KV events of every endpoint of a pool that tells of its cache."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.kv_events_source import KvEventsSource
from lodestar_extproc.supervision import BackgroundTask, Supervisor

if TYPE_CHECKING:
    import zmq.asyncio

    from lodestar_extproc.fleet.kv_events.follower import EventSink


@dataclass(slots=True)
class EventCounts:
    """What came of one engine.

    Attributes:
        malformed: messages that could not be read.
        gaps: messages before which others were missed.
        restarts: of the engine, by its numbers.
    """

    messages: int = 0
    events: int = 0
    malformed: int = 0
    gaps: int = 0
    restarts: int = 0


class KvFollowing:
    """One task an endpoint, each begun anew when it fails.

    Args:
        sink: told of events.
        clock: monotonic seconds, the router's.
    """

    def __init__(self, sink: EventSink, supervisor: Supervisor, clock: Callable[[], float]) -> None:
        self._sink = sink
        self._supervisor = supervisor
        self._clock = clock
        self._wanted: dict[str, KvEventsSource] = {}
        self._counts: dict[str, EventCounts] = {}
        self._changed = asyncio.Event()

    @property
    def counts(self) -> Mapping[str, EventCounts]:
        """By address, for the endpoints followed now."""
        return MappingProxyType(self._counts)

    def set_endpoints(self, endpoints: Iterable[Endpoint]) -> None:
        """Follow these from now on; those that stay keep their counts."""
        self._wanted = {e.address: e.kv_events for e in endpoints if e.kv_events is not None}
        self._counts = {a: self._counts.get(a, EventCounts()) for a in self._wanted}
        self._changed.set()

    async def run(self) -> None:
        """Follow until cancelled."""
        while not self._wanted:
            await self._changed.wait()
            self._changed.clear()
        # Not before anybody is to be followed: it is an extra, and takes a thread.
        from zmq.asyncio import Context  # noqa: PLC0415

        context = Context()
        tasks: dict[tuple[str, KvEventsSource], asyncio.Task[None]] = {}
        try:
            while True:
                self._reconcile(tasks, context)
                await self._changed.wait()
                self._changed.clear()
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
            context.destroy(linger=0)

    def _reconcile(
        self,
        tasks: dict[tuple[str, KvEventsSource], asyncio.Task[None]],
        context: zmq.asyncio.Context,
    ) -> None:
        """Begin what is wanted, end what is not."""
        from lodestar_extproc.fleet.kv_events.follower import Follower  # noqa: PLC0415  (as above)

        wanted = set(self._wanted.items())
        for gone in tasks.keys() - wanted:
            tasks.pop(gone).cancel()
            self._sink.cache_events_lost(gone[0], restarted=False)
        for address, source in wanted - tasks.keys():
            counts = self._counts[address]
            follower = Follower(address, source, self._sink, counts, context, self._clock)
            tasks[address, source] = asyncio.create_task(
                self._supervisor.keep(BackgroundTask.KV_EVENTS, follower.run)
            )
