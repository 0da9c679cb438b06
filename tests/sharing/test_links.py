"""Over real gRPC, all that is handed over arrives, in order, several events in a message or one."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

import grpc
import pytest

from lodestar_extproc.completion import Completion, Outcome
from lodestar_extproc.fleet.discovery.dns import resolve
from lodestar_extproc.generated.lodestar.v1.replicas_pb2 import Handed, Hello
from lodestar_extproc.sharing.handed import HandedEvent
from lodestar_extproc.sharing.links import Link, Links
from lodestar_extproc.sharing.tell_service import METHOD, SERVICE, VERSION, TellService
from waiting import until

OURS, THEIRS = "00000001", "00000002"


def an_end(number: int) -> Completion:
    return Completion(5.0, Outcome.SERVED, f"pool.{THEIRS}{number:016x}", attempts=number)


class Told:
    """A replica that another tells; of an older version it reads one event of a message."""

    def __init__(self, version: int = VERSION) -> None:
        self.events: list[HandedEvent | None] = []
        self.n_messages = 0
        self.service = TellService(THEIRS, self.events.append)
        self._hello = Hello(version=version, origin=THEIRS).SerializeToString()
        self._is_old = version < VERSION

    @asynccontextmanager
    async def listening(self, address: str):
        server = grpc.aio.server()
        tell = grpc.stream_stream_rpc_method_handler(self._tell)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {METHOD: tell}),)
        )
        server.add_insecure_port(address)
        await server.start()
        try:
            yield self
        finally:
            await server.stop(None)

    async def _tell(self, messages, context) -> None:
        await context.write(self._hello)
        async for message in messages:
            self.n_messages += 1
            read = Handed.FromString(message)
            if self._is_old:
                read.ClearField("more")
            self.service.read(read.SerializeToString())


@asynccontextmanager
async def links_to(address: str):
    links = Links(OURS, [address], resolve)
    running = asyncio.create_task(links.run())
    try:
        await until(lambda: THEIRS in links.peers)
        yield links
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("version", [1, VERSION])
async def test_all_events_arrive_in_order_whatever_version_takes_them(tmp_path, version):
    address, events = f"unix:{tmp_path}/s", [an_end(number) for number in range(1, 500)]
    async with Told(version).listening(address) as told, links_to(address) as links:
        assert all(links.post(THEIRS, event) for event in events)
        await until(lambda: len(told.events) == len(events))

        assert [event.attempts for event in told.events] == list(range(1, 500))
        assert told.n_messages == len(events) if version == 1 else told.n_messages < 10


async def test_what_waits_for_a_replica_that_goes_away_is_counted_as_lost(tmp_path):
    lost: list[int] = []
    link = Link(f"unix:{tmp_path}/nobody", None, time.monotonic, lost.append)
    for number in range(10):
        link.post(an_end(number))
    running = asyncio.create_task(link.run(OURS))
    await until(lambda: lost)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert 8 <= lost[0] <= 10  # one or two may have been on their way


async def test_nobody_is_told_what_is_for_a_replica_that_is_not_known(tmp_path):
    address = f"unix:{tmp_path}/s"
    async with Told().listening(address) as told, links_to(address) as links:
        assert not links.post("00000003", an_end(1))
        assert links.post(THEIRS, an_end(2))
        await until(lambda: len(told.events) == 1)
