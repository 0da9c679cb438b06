"""ExtProcServer: ext_proc streams, and beside them the access log and health, on one gRPC port.

Only bytes and streams are handled here: `exchange.py` decides what to answer. Nothing that goes
wrong on a stream stops the request it belongs to.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import grpc

from lodestar_extproc import names
from lodestar_extproc.completion import Completion, Outcome
from lodestar_extproc.config.overrides import KEYS_BEFORE
from lodestar_extproc.extproc import wire
from lodestar_extproc.extproc.access_log_service import AccessLogService
from lodestar_extproc.extproc.body_reader import BodyReader
from lodestar_extproc.extproc.error_boundary import ErrorBoundary
from lodestar_extproc.extproc.events import Event, Reply, RouteTo
from lodestar_extproc.extproc.exchange import Exchange
from lodestar_extproc.extproc.grpc_health import HealthServicer
from lodestar_extproc.extproc.heard_ends import HeardEnds, OtherReplicas
from lodestar_extproc.extproc.pools import Overrides, PoolRouters
from lodestar_extproc.extproc.reader_process import ReaderProcess
from lodestar_extproc.extproc.stream_listener import StreamListener
from lodestar_extproc.extproc.stream_outcome import StreamOutcome, summary
from lodestar_extproc.extproc.traced_stream import TracedStream, Traces
from lodestar_extproc.extproc.turns import Turns
from lodestar_extproc.generated.lodestar.v1.envoy_pb2 import ProcessingRequest
from lodestar_extproc.routing.ids import new_id

MAX_MESSAGE_BYTES = 64 * 2**20
"""gRPC's own 4 MiB turn a larger body into a 500; this holds a million tokens, and images."""
OPTIONS = (
    # Far above any number of requests in flight: a stream that waits here is a request that waits.
    ("grpc.max_concurrent_streams", 100_000),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # HTTP/2's 16 KiB and gRPC's 64 KiB would cut every large body into many pieces.
    ("grpc.http2.max_frame_size", 2**20),
    ("grpc.http2.lookahead_bytes", 2**20),
    # A mesh may ping as often as it likes.
    ("grpc.http2.max_ping_strikes", 0),
)
# A second process on the same port would get a random share of the connections.
OWN_PORT = (("grpc.so_reuseport", 0),)
# That share is as random as it is lasting, and a process that was begun anew has none: connections
# are let go so often, each once its streams have ended, and those that follow are dealt anew.
SHARED_PORT = (("grpc.so_reuseport", 1), ("grpc.max_connection_age_ms", 5_000))
TURN_S, TOLD_WITHIN_TURNS = 0.005, 20
"""A tenth of a second at most: the observer is late by some turns of a busy loop, and Envoy waits
for half a second. Judgements."""
_log = logging.getLogger(__name__)


class ListenError(OSError):
    """An address could not be bound."""


class ExtProcServer:
    """Serves Envoy.

    Args:
        access_log: Envoy is configured to send its access log here.
        origin: begins the ids of streams (`routing/ids.py`).
        traces: of requests; None for none.
        others: who may have decided on what is heard of here; None for nobody.
        clock: monotonic seconds.

    Attributes:
        reader: reads long bodies while somebody lets it run.
        ends: takes the ends of requests that were decided on here.
    """

    def __init__(
        self,
        routers: PoolRouters,
        listener: StreamListener,
        *,
        access_log: bool = True,
        origin: str = "",
        traces: Traces | None = None,
        others: OtherReplicas | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._routers = routers
        self._listener = listener
        self._access_log = access_log
        self._origin = origin
        self._traces = traces
        self._clock = clock
        self._health = HealthServicer()
        self._boundary = ErrorBoundary(listener)
        self._heard = HeardEnds(routers.complete, others)
        self.ends = self._heard.ours
        self._logs = AccessLogService(self._heard.end, listener, self._boundary, clock)
        self._ids = random.Random()
        self.reader = ReaderProcess(clock=clock)
        self._bodies = BodyReader(self.reader, clock)
        self._turns = Turns(clock)
        self._old_keys: set[str] = set()
        self._servers: list[Any] = []

    async def start(
        self,
        addresses: Sequence[str],
        *,
        credentials: grpc.ServerCredentials | None = None,
        health_addresses: Sequence[str] = (),
        beside: Sequence[grpc.GenericRpcHandler] = (),
        beside_addresses: Sequence[str] = (),
        shared_ports: bool = False,
        serving: bool = True,
    ) -> tuple[int, ...]:
        """Listen on each `host:port` or `unix:/path`; the ports bound, for port 0 the one given.

        Args:
            credentials: to encrypt the way to *addresses* by.
            health_addresses: where health alone is told, as probes ask it: not encrypted.
            beside: what else is served on *addresses*.
            beside_addresses: where that alone is served, not encrypted: between processes of one
                machine.
            shared_ports: other processes of ours listen there, too: the kernel gives each its
                share of the connections.
            serving: what health is told from now on.

        Raises:
            ListenError: an address cannot be bound.
        """
        health = self._health.handler()
        ports = (
            *await self._listen(
                addresses, (*self._handlers(), health, *beside), credentials, shared=shared_ports
            ),
            *await self._listen(health_addresses, (health,), shared=shared_ports),
        )
        await self._listen(beside_addresses, beside)
        self.set_serving(serving=serving)
        return ports

    async def _listen(
        self,
        addresses: Sequence[str],
        handlers: Sequence[grpc.GenericRpcHandler],
        credentials: grpc.ServerCredentials | None = None,
        *,
        shared: bool = False,
    ) -> tuple[int, ...]:
        if not addresses:
            return ()
        server = grpc.aio.server(options=(*OPTIONS, *(SHARED_PORT if shared else OWN_PORT)))
        server.add_generic_rpc_handlers(tuple(handlers))
        ports = tuple(_bind(server, address, credentials) for address in addresses)
        await server.start()
        self._servers.append(server)
        return ports

    def set_serving(self, *, serving: bool) -> None:
        """What health checks are told; streams are served either way."""
        self._health.set_serving(serving=serving)

    async def stop(self, grace_s: float) -> None:
        """Fail health checks, take no new streams, and let open ones end for *grace_s*.

        To let Envoy go elsewhere before, stop serving and wait for its health checks.
        """
        self._health.end()
        self._turns.let_all_go()
        self._logs.end()
        self.ends.flush()
        await asyncio.gather(*(server.stop(grace_s) for server in self._servers))

    def _handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        # Bytes in, bytes out: we can count garbage then, and encode constant replies once.
        process = grpc.stream_stream_rpc_method_handler(self._process)
        return tuple(
            grpc.method_handlers_generic_handler(service, {name: handler})
            for (service, name), handler in (
                (_method(names.PROCESS_METHOD), process),
                (_method(names.ACCESS_LOG_METHOD), self._logs.handler()),
            )
        )

    async def _process(self, _messages: AsyncIterator[bytes], context: Any) -> None:
        """One ext_proc stream. Returning ends it, and the request goes on without us."""
        exchange: Exchange | None = None
        traced = TracedStream(self._traces, self._clock)
        wanted = self._routers.headers
        if self._traces is not None:
            wanted |= self._traces.headers
        self._listener.stream_opened()
        try:
            with self._boundary:
                # Its iterator would keep the last message, a body, until garbage is collected.
                while (data := await context.read()) is not grpc.aio.EOF:
                    message = wire.parse(data)
                    # Of a large body there are two copies at once, and one from the event on.
                    del data
                    if exchange is None:
                        exchange = self._exchange(message, context)
                    event = wire.decode(message, self._clock(), wanted)
                    del message
                    self._listener.message(event.phase)
                    traced.came(event)
                    with self._boundary:
                        await _until_told(exchange, event)
                        await self._bodies.read(exchange.unread(event))
                    traced.read()
                    await self._answer(exchange, traced, event, context)
                    # A body is not kept while its answer comes.
                    del event
                    if exchange.done:
                        break
        finally:
            self._close(exchange)
            traced.close(StreamOutcome.CUT if exchange is None else exchange.outcome)

    async def _answer(
        self, exchange: Exchange, traced: TracedStream, event: Event, context: Any
    ) -> None:
        replies = self._replies(exchange, event)
        for reply in traced.told(event, exchange.decision, replies):
            await self._tell(exchange, reply, context)
        if exchange.turn is not None:
            await self._turns.wait(exchange.turn)
            traced.read()  # it is decided now, not when it came
            replies = self._replies_in_turn(exchange, event)
            for reply in traced.told(event, exchange.decision, replies):
                await self._tell(exchange, reply, context)

    async def _tell(self, exchange: Exchange, reply: Reply, context: Any) -> None:
        try:
            await context.write(wire.encode(reply))
        except BaseException:  # a cancellation too
            if isinstance(reply, RouteTo):
                # Envoy went on before it could be told; where that was the first reply, its access
                # log has no word of ours to tell the end by.
                end = Completion(self._clock(), Outcome.CLIENT_GONE, stream_id=exchange.stream_id)
                self._routers.complete(end)
            raise

    def _replies_in_turn(self, exchange: Exchange, event: Event) -> tuple[Reply, ...]:
        with self._boundary:
            return exchange.turn_came(self._clock())
        return exchange.go_on_without_us(event)

    def _replies(self, exchange: Exchange, event: Event) -> tuple[Reply, ...]:
        with self._boundary:
            return exchange.receive(event)
        return exchange.go_on_without_us(event)

    def _exchange(self, message: ProcessingRequest, context: Any) -> Exchange:
        sent = dict(context.invocation_metadata())
        self._warn_of_old_keys(sent)
        return Exchange(
            self._routers,
            wire.decode_opening(message),
            Overrides.of(sent),
            stream_id=new_id(self._origin, self._ids),
            access_log=self._access_log,
        )

    def _warn_of_old_keys(self, sent: Mapping[str, str]) -> None:
        """Once each, for a route sends it with every request."""
        for old in (KEYS_BEFORE.keys() & sent.keys()) - self._old_keys:
            self._old_keys.add(old)
            _log.warning("a route sends %s: it is now called %s", old, KEYS_BEFORE[old])

    def _close(self, exchange: Exchange | None) -> None:
        outcome = StreamOutcome.CUT
        if exchange is not None:
            exchange.close(self._clock())
            if exchange.observed_id:
                self._heard.observed(exchange.observed_id)
            outcome = exchange.outcome
            if exchange.request.over_budget:
                self._listener.body_over_budget(exchange.request.over_budget)
            if exchange.n_repeats:
                self._listener.messages_repeated(exchange.n_repeats)
            if _log.isEnabledFor(logging.DEBUG):
                said = summary(outcome, exchange.decision, exchange.observed_id)
                _log.debug("exchange %s", said)
        self._listener.stream_closed(outcome)


async def _until_told(exchange: Exchange, event: Event) -> None:
    """Let the observer come first: a client may ask for an answer as soon as it knows its id."""
    for _ in range(TOLD_WITHIN_TURNS):
        if not exchange.request.is_owed(event):
            return
        await asyncio.sleep(TURN_S)


def _bind(server: Any, address: str, credentials: grpc.ServerCredentials | None) -> int:
    try:
        if credentials is None:
            return int(server.add_insecure_port(address))
        return int(server.add_secure_port(address, credentials))
    except RuntimeError as error:
        raise ListenError(f"cannot listen on {address}; is it in use?") from error


def _method(path: str) -> tuple[str, str]:
    """Split `/service/name` into service and name."""
    service, _, name = path.removeprefix("/").partition("/")
    return service, name
