"""Links: a stream to every other replica, by which each is told what was heard of its requests.

It knows replicas by the addresses at which Envoy, or an option, has this service; each says its
name when a stream opens, so that one address may stand for this very process.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from lodestar_extproc.generated.lodestar.v1.replicas_pb2 import Handed, Hello
from lodestar_extproc.sharing.handed import HandedEvent, Observed, encode
from lodestar_extproc.sharing.tell_service import METHOD, SERVICE, SEVERAL

if TYPE_CHECKING:
    # Loaded where somebody is told: a process that is alone need not hold its 9 MiB.
    import grpc

MAX_WAITING = 10_000
"""Events for one replica: 10 s of 1000 requests a second, under 2 MB. More are counted as lost."""
GATHER_S = 0.01
"""What is heard within it goes in one message, for a message costs more than what it says. Load is
later known by as much: a third of a frame (`config/share.py`), and less than an engine's step."""
MAX_GATHERED = 200
"""In one message: under 40 KB."""
RETRY_S = 1.0
"""Between two attempts to reach a replica; Envoy's own check takes as long to find one."""
LOOK_INTERVAL_S = 5.0
"""Between two resolutions of names: Envoy's own default (`dns_refresh_rate`)."""
Resolve = Callable[[str], Awaitable[list[str]]]
_log = logging.getLogger(__name__)


class Link:
    """One address of a replica, ours or another's.

    Attributes:
        origin: who listens there; empty until it has said so.
    """

    def __init__(
        self,
        address: str,
        credentials: grpc.ChannelCredentials | None,
        clock: Callable[[], float],
        lost: Callable[[int], None],
    ) -> None:
        self.origin = ""
        self._lost = lost
        self._address = address
        self._credentials = credentials
        self._clock = clock
        self._waiting: deque[HandedEvent] = deque()
        self._more = asyncio.Event()
        self._n_calls = 0
        self._version = 0

    def post(self, event: HandedEvent) -> bool:
        """Send *event* as soon as may be; False where too many wait."""
        if isinstance(event, Observed) and self._version < SEVERAL:
            return True  # it waits for no such word
        if len(self._waiting) >= MAX_WAITING:
            return False
        self._waiting.append(event)
        self._more.set()
        return True

    async def flushed(self) -> None:
        """Wait until nothing waits; a message that was taken may still be on its way."""
        while self._waiting:  # noqa: ASYNC110  (once, at our end)
            await asyncio.sleep(GATHER_S)

    async def run(self, own_origin: str) -> None:
        """Hold a stream there, again and again, until cancelled."""
        import grpc  # noqa: PLC0415  (see above)

        while True:
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, DecodeError):
                async with self._channel() as channel:
                    await self._talk(channel, own_origin)
            self.origin = ""
            if self._waiting:
                self._lost(len(self._waiting))
                self._waiting.clear()
            self._n_calls += 1
            self._more.set()  # what fed the broken call ends, and takes nothing from the next
            await asyncio.sleep(RETRY_S)

    async def _talk(self, channel: grpc.aio.Channel, own_origin: str) -> None:
        method = channel.stream_stream(f"/{SERVICE}/{METHOD}")
        call = method(self._messages(self._n_calls))
        async for data in call:
            hello = Hello()
            hello.ParseFromString(data)
            self.origin, self._version = hello.origin, hello.version
            if hello.origin != own_origin:
                _log.info("replica %s is at %s", hello.origin, self._address)

    async def _messages(self, n_call: int) -> AsyncIterator[bytes]:
        """For one call: gRPC leaves the feeder of a broken one where it waits."""
        while n_call == self._n_calls:
            if self._waiting:
                yield self._next().SerializeToString()
            else:
                self._more.clear()
                await self._more.wait()
                await asyncio.sleep(GATHER_S)

    def _next(self) -> Handed:
        """What waits, as much of it as goes in one message."""
        at_s = self._clock()
        told = encode(self._waiting.popleft(), at_s)
        several = self._version >= SEVERAL
        while several and self._waiting and len(told.more) < MAX_GATHERED:
            told.more.append(encode(self._waiting.popleft(), at_s))
        return told

    def _channel(self) -> grpc.aio.Channel:
        import grpc  # noqa: PLC0415  (see above)

        # A process of ours restarts within seconds: gRPC's own backoff would wait for minutes.
        options = (("grpc.max_reconnect_backoff_ms", 1000), ("grpc.enable_http_proxy", 0))
        if self._credentials is None:
            return grpc.aio.insecure_channel(self._address, options=options)
        return grpc.aio.secure_channel(self._address, self._credentials, options=options)


class Links:
    """One link an address.

    Args:
        resolve: the IP addresses of a host's name; raises OSError where there are none.
        lost: is told how many events waited for a replica that went away.
    """

    def __init__(
        self,
        origin: str,
        places: Sequence[str],
        resolve: Resolve,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        clock: Callable[[], float] = time.monotonic,
        lost: Callable[[int], None] = lambda _n: None,
    ) -> None:
        self._origin = origin
        self._lost = lost
        self._places = tuple(places)
        self._resolve = resolve
        self._credentials = credentials
        self._clock = clock
        self._links: dict[str, Link] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    @property
    def peers(self) -> frozenset[str]:
        """The other replicas that can be told."""
        found = {link.origin for link in self._links.values()}
        return frozenset(found - {"", self._origin})

    def post(self, owner: str, event: HandedEvent) -> bool:
        """Send *event* to the replica *owner*; False where there is no way to it."""
        for link in self._links.values():
            if link.origin == owner:
                return link.post(event)
        return False

    async def flushed(self) -> None:
        """Wait until nothing waits for any of them."""
        await asyncio.gather(*(link.flushed() for link in self._links.values()))
        await asyncio.sleep(GATHER_S)

    async def run(self) -> None:
        """Hold a link to every address of every place, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._adopt(await self._addresses(), group)
                await asyncio.sleep(LOOK_INTERVAL_S)

    def _adopt(self, addresses: Iterable[str], group: asyncio.TaskGroup) -> None:
        wanted = set(addresses)
        for address in self._links.keys() - wanted:
            del self._links[address]
            self._running.pop(address).cancel()
        for address in wanted - self._links.keys():
            link = self._links[address] = Link(address, self._credentials, self._clock, self._lost)
            self._running[address] = group.create_task(link.run(self._origin))

    async def _addresses(self) -> set[str]:
        """A name that does not resolve just now keeps the addresses it had."""
        found: set[str] = set()
        for place in self._places:
            host, _, port = place.rpartition(":")
            if place.startswith("unix"):
                found.add(place)
                continue
            try:
                ips = await self._resolve(host.strip("[]"))
            except OSError:
                return found | self._links.keys()
            found |= {f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip in ips}
        return found
