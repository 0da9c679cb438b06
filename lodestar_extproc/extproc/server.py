"""ExtProcServer: ext_proc streams, and beside them the access log and health, on one gRPC port.

Only bytes and streams are handled here: `exchange.py` decides what to answer, `access_log.py` what
an entry means. Nothing that goes wrong on a stream stops the request it belongs to.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import grpc

from lodestar_extproc import names
from lodestar_extproc.config.overrides import KEYS_BEFORE
from lodestar_extproc.extproc import access_log, wire
from lodestar_extproc.extproc.events import Event, Reply
from lodestar_extproc.extproc.exchange import Exchange
from lodestar_extproc.extproc.grpc_health import HealthServicer
from lodestar_extproc.extproc.pools import Overrides, PoolRouters
from lodestar_extproc.extproc.stream_listener import StreamListener
from lodestar_extproc.extproc.stream_outcome import StreamOutcome
from lodestar_extproc.extproc.transitions import ProtocolError
from lodestar_extproc.extproc.work_in_steps import WorkInSteps
from lodestar_extproc.generated.lodestar.v1.envoy_pb2 import (
    ProcessingRequest,
    StreamAccessLogsMessage,
    StreamAccessLogsResponse,
)

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
    # A second process on the same port would get a random share of the connections.
    ("grpc.so_reuseport", 0),
    # A mesh may ping as often as it likes.
    ("grpc.http2.max_ping_strikes", 0),
)
_log = logging.getLogger(__name__)


class ListenError(OSError):
    """An address could not be bound."""


class ExtProcServer:
    """Serves Envoy.

    Args:
        access_log: Envoy is configured to send its access log here.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        routers: PoolRouters,
        listener: StreamListener,
        *,
        access_log: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._routers = routers
        self._listener = listener
        self._access_log = access_log
        self._clock = clock
        self._health = HealthServicer()
        self._boundary = _ErrorBoundary(listener)
        self._in_steps = WorkInSteps(clock)
        self._old_keys: set[str] = set()
        self._log_streams: set[asyncio.Task[Any] | None] = set()
        self._servers: list[Any] = []

    async def start(
        self,
        addresses: Sequence[str],
        *,
        credentials: grpc.ServerCredentials | None = None,
        health_addresses: Sequence[str] = (),
        serving: bool = True,
    ) -> tuple[int, ...]:
        """Listen on each `host:port` or `unix:/path`; the ports bound, for port 0 the one given.

        Args:
            credentials: to encrypt the way to *addresses* by.
            health_addresses: where health alone is told, as probes ask it: not encrypted.
            serving: what health is told from now on.

        Raises:
            ListenError: an address cannot be bound.
        """
        health = self._health.handler()
        ports = (
            *await self._listen(addresses, (*self._handlers(), health), credentials),
            *await self._listen(health_addresses, (health,)),
        )
        self.set_serving(serving=serving)
        return ports

    async def _listen(
        self,
        addresses: Sequence[str],
        handlers: Sequence[grpc.GenericRpcHandler],
        credentials: grpc.ServerCredentials | None = None,
    ) -> tuple[int, ...]:
        if not addresses:
            return ()
        server = grpc.aio.server(options=OPTIONS)
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
        # Envoy never ends these; `server.stop` would wait for them to the end of the grace period.
        for stream in filter(None, self._log_streams):
            stream.cancel()
        await asyncio.gather(*(server.stop(grace_s) for server in self._servers))

    def _handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        # Bytes in, bytes out: we can count garbage then, and encode constant replies once.
        process = grpc.stream_stream_rpc_method_handler(self._process)
        stream_logs = grpc.stream_unary_rpc_method_handler(
            self._stream_access_logs,
            request_deserializer=StreamAccessLogsMessage.FromString,
            response_serializer=StreamAccessLogsResponse.SerializeToString,
        )
        return tuple(
            grpc.method_handlers_generic_handler(service, {name: handler})
            for (service, name), handler in (
                (_method(names.PROCESS_METHOD), process),
                (_method(names.ACCESS_LOG_METHOD), stream_logs),
            )
        )

    async def _process(self, messages: AsyncIterator[bytes], context: Any) -> None:
        """One ext_proc stream. Returning ends it, and the request goes on without us."""
        exchange: Exchange | None = None
        wanted = self._routers.headers
        self._listener.stream_opened()
        try:
            with self._boundary:
                async for data in messages:
                    message = wire.parse(data)
                    if exchange is None:
                        exchange = self._exchange(message, context)
                    event = wire.decode(message, self._clock(), wanted)
                    # Of a large body there is one copy from here on.
                    del data, message
                    self._listener.message(event.phase)
                    with self._boundary:
                        await self._in_steps.work(exchange.steps(event))
                    for reply in self._replies(exchange, event):
                        await context.write(wire.encode(reply))
                    if exchange.done:
                        break
        finally:
            self._close(exchange)

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
            outcome = exchange.outcome
            if exchange.request.over_budget:
                self._listener.body_over_budget(exchange.request.over_budget)
            if exchange.n_repeats:
                self._listener.messages_repeated(exchange.n_repeats)
            if _log.isEnabledFor(logging.DEBUG):
                _log.debug("exchange %s", exchange.summary())
        self._listener.stream_closed(outcome)

    async def _stream_access_logs(
        self, messages: AsyncIterator[StreamAccessLogsMessage], _context: object
    ) -> StreamAccessLogsResponse:
        stream = asyncio.current_task()
        self._log_streams.add(stream)
        try:
            await self._read_log(messages)
        except asyncio.CancelledError:
            # `stop` cancelled it: only a reply ends the stream before the grace period does.
            pass
        finally:
            self._log_streams.discard(stream)
        return StreamAccessLogsResponse()

    async def _read_log(self, messages: AsyncIterator[StreamAccessLogsMessage]) -> None:
        async for message in messages:
            at_s = self._clock()
            for entry in message.http_logs.log_entry:
                with self._boundary:
                    self._log_entry(entry, at_s)

    def _log_entry(self, entry: Any, at_s: float) -> None:
        completion = access_log.completion(entry, at_s)
        self._listener.log_entry(completion.outcome if completion else None)
        if completion is not None:
            self._routers.complete(completion)


class _ErrorBoundary:
    """Around a stream, a message or a log entry: errors there are counted, logged and suppressed.

    It is entered several times for each request; a generator would cost ten times as much.
    """

    def __init__(self, listener: StreamListener) -> None:
        self._listener = listener
        self._warned: set[str] = set()

    def __enter__(self) -> None:
        """There is nothing to prepare."""

    def __exit__(
        self, _type: object, error: BaseException | None, _traceback: TracebackType | None
    ) -> bool:
        if isinstance(error, ProtocolError):
            self._listener.stream_failed("protocol")
            self._warn_once(f"ext_proc stream ended early: {error}")
            return True
        # The only catch-all: no bug of ours may stop a request. A cancellation is no Exception.
        if isinstance(error, Exception):
            self._listener.stream_failed("internal")
            _log.error("ext_proc stream ended early", exc_info=error)
            return True
        return False

    def _warn_once(self, text: str) -> None:
        """Warn of each text once: a filter that is configured wrongly errs on every request."""
        level = logging.DEBUG if text in self._warned else logging.WARNING
        self._warned.add(text)
        _log.log(level, text)


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
