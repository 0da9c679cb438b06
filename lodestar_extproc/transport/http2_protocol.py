"""Http2Protocol: one connection of asyncio's, whose bytes `http2/` understands."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any, cast

from lodestar_extproc.transport.calls import Services
from lodestar_extproc.transport.http2.connection import Http2Connection

GREETING_S = 10.0
"""A client that has not begun by then speaks no HTTP/2, and would hold a connection for nothing. A
judgement."""
KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES = 60, 10, 3
"""A machine that is gone without a word is noticed after a minute and a half. Judgements."""
TURN_BYTES = 64 * 2**10
"""After so many at once others have their turn before more are read: the loop would take all that
the system holds, megabytes of a long body, in one. A judgement: 0.1 ms of work."""
FLUSH_S = 5.0
"""For what was written last to be taken, once a connection is to close."""


class Http2Protocol(asyncio.Protocol):
    """Bytes between a socket and a connection; told of by *opened* and *closed*.

    Args:
        encrypted: the client has to have asked for HTTP/2 as it encrypted.
        max_age_s: the client is asked to begin no more streams then; None for never.
    """

    connection: Http2Connection

    def __init__(
        self,
        services: Services,
        *,
        encrypted: bool,
        max_age_s: float | None = None,
        opened: Callable[[Http2Protocol], None],
        closed: Callable[[Http2Protocol], None],
    ) -> None:
        self._services = services
        self._encrypted = encrypted
        self._max_age_s = max_age_s
        self._opened = opened
        self._closed = closed
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._is_choked = False
        self._timers: list[asyncio.TimerHandle] = []
        # asyncio keeps no task that nobody keeps.
        self._tasks: set[asyncio.Task[None]] = set()

    # -- of asyncio ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are none by their class.
        made = self._transport = cast(asyncio.Transport, transport)
        self.connection = Http2Connection(self._services, self, self._loop.time)
        self._opened(self)
        tls = made.get_extra_info("ssl_object")
        if self._encrypted and (tls is None or tls.selected_alpn_protocol() != "h2"):
            made.abort()
            return
        _keep_alive(made.get_extra_info("socket"))
        self._timers.append(self._loop.call_later(GREETING_S, self._require_greeting))
        if self._max_age_s is not None:
            drain = self.connection.drain
            self._timers.append(self._loop.call_later(self._max_age_s, drain))
        self.connection.begin()

    def data_received(self, data: bytes) -> None:
        self.connection.receive(data)
        if len(data) >= TURN_BYTES and self._transport is not None:
            self._transport.pause_reading()
            self._loop.call_soon(self._read_on)

    def pause_writing(self) -> None:
        """What does not take what we say is not heard either: nothing piles up."""
        self._is_choked = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._is_choked = False
        self._read_on()

    def _read_on(self) -> None:
        transport = self._transport
        if transport is not None and not self._is_choked and not transport.is_closing():
            transport.resume_reading()

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        for timer in self._timers:
            timer.cancel()
        self.connection.lost()
        self._closed(self)

    # -- of `Wire` ----------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._timers.append(self._loop.call_later(FLUSH_S, self.abort))

    def soon(self, call: Callable[[], None]) -> asyncio.Handle:
        return self._loop.call_soon(call)

    def later(self, after_s: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        return self._loop.call_later(after_s, call)

    def run(
        self, work: Coroutine[Any, Any, None], done: Callable[[Exception | None], None]
    ) -> asyncio.Task[None]:
        # Not from inside of *work*: what is cancelled before its first turn never runs.
        def tell(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            done(None if task.cancelled() else cast("Exception | None", task.exception()))

        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(tell)
        return task

    def failed(self, error: Exception) -> None:
        told = {"message": "a service failed on a call", "exception": error}
        self._loop.call_exception_handler(told)

    # -- ends ---------------------------------------------------------------------------------

    def abort(self) -> None:
        """Whatever was written last."""
        if self._transport is not None:
            self._transport.abort()

    def _require_greeting(self) -> None:
        if not self.connection.is_settled:
            self.abort()


def _keep_alive(connected: socket.socket | None) -> None:
    if connected is None or connected.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
