"""EngineConnection: one connection to an engine, for one request after the other."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple, cast

from httptools import HttpParserError, HttpResponseParser

from lodestar_extproc.fleet.engine_target import Target

MAX_HEADER_BYTES = 64 * 1024
"""As much as Envoy takes (`max_request_headers_kb`, 60): more is no engine's."""
LONG_READ_BYTES = 128 * 1024
"""Read at once: more is there, and other connections come first. uvloop reads up to 256 KB."""


class EngineAnswer(NamedTuple):
    """An answer that came whole.

    Attributes:
        reading_s: CPU that reading it took of this thread.
    """

    status: int
    body: bytes
    reading_s: float = 0.0


class BrokenConnection(Exception):  # noqa: N818  (the condition's name)
    """It ended before a whole answer had come.

    Attributes:
        was_silent: nothing of an answer had.
    """

    def __init__(self, problem: str, *, was_silent: bool = False) -> None:
        super().__init__(problem)
        self.was_silent = was_silent


class EngineConnection(asyncio.Protocol):
    """One connection, for one request after the other.

    Args:
        among: it is in there while it is open.

    Attributes:
        is_reusable: the last answer came whole, and another may be asked for.
        used_at_s: when that was, by the loop's clock.
    """

    def __init__(self, among: set[EngineConnection]) -> None:
        self._among = among
        self._transport: asyncio.WriteTransport | None = None
        self._answering: asyncio.Future[EngineAnswer] | None = None
        self._n_bytes, self._max_bytes, self._reading_s = 0, 0, 0.0
        self._has_body = True
        self._begin()
        self.is_reusable = False
        self.used_at_s = 0.0

    async def ask(self, target: Target, max_bytes: int) -> EngineAnswer:
        """Send *target*'s request and read the answer; what is given up is closed.

        Raises:
            BrokenConnection: there is none, or its body has more than *max_bytes*.
        """
        loop = asyncio.get_running_loop()
        self._answering = loop.create_future()
        self._n_bytes, self._max_bytes, self._reading_s = 0, max_bytes, 0.0
        self._has_body = target.has_body
        self.is_reusable = False
        if self._transport is None or self._transport.is_closing():
            raise BrokenConnection("was closed", was_silent=True)
        try:
            self._transport.write(target.request)
            answer = await self._answering
        except BaseException:
            self.abort()
            raise
        finally:
            # A page is kept by nobody but who asked.
            self._answering = None
            self._begin()
        self.used_at_s = loop.time()
        return answer

    def _begin(self) -> None:
        """An answer, or an interim one before it, begins."""
        self._body: list[bytes] = []
        self._has_headers, self._ends_with_connection = False, True

    def abort(self) -> None:
        """Close it now."""
        self.is_reusable = False
        if self._transport is not None:
            self._transport.abort()

    # -- what the transport tells ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        # Each refers to the other until the end, which one that is refused never has.
        self._parser = HttpResponseParser(self)
        # uvloop's TLS drops what has come while reading is paused, if its server then closes.
        self._is_encrypted = transport.get_extra_info("sslcontext") is not None
        self._among.add(self)

    def data_received(self, data: bytes) -> None:
        began_s = time.thread_time()
        if self._answering is None or self._answering.done():
            self.abort()  # it speaks unasked
            return
        self._n_bytes += len(data)
        if len(data) >= LONG_READ_BYTES and not self._is_encrypted:
            self._read_on_next_turn()
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            self._fail(f"did not answer in HTTP: {error}")
        if self._n_bytes > self._max_bytes + MAX_HEADER_BYTES:
            self._fail(f"answered more than {self._max_bytes} bytes")
        self._reading_s += time.thread_time() - began_s

    def _read_on_next_turn(self) -> None:
        """The loop would read a long page in one go, and requests wait for all of it."""
        reading = cast(asyncio.ReadTransport, self._transport)
        if not reading.is_closing():
            reading.pause_reading()
            asyncio.get_running_loop().call_soon(self._read_on)

    def _read_on(self) -> None:
        reading = cast(asyncio.ReadTransport, self._transport)
        if not reading.is_closing():
            reading.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self._among.discard(self)
        self.is_reusable = False
        if self._answering is not None and not self._answering.done():
            self._break_off(error)
        del self._parser

    def _break_off(self, error: Exception | None) -> None:
        if self._has_headers and self._ends_with_connection and error is None:
            self._complete()
        else:
            problem = f"broke off: {error}" if error else "closed the connection"
            self._fail(problem, was_silent=self._n_bytes == 0)

    # -- what the parser tells -------------------------------------------------------------------

    def on_header(self, name: bytes, _: bytes) -> None:
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._ends_with_connection = False

    def on_headers_complete(self) -> None:
        self._has_headers = True
        if not self._has_body and self._parser.get_status_code() >= 200:
            self._complete()  # and is not asked again: the parser waits for a body

    def on_body(self, part: bytes) -> None:
        self._body.append(part)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() < 200:
            self._begin()
            return
        self.is_reusable = self._parser.should_keep_alive()
        self._complete()

    def _complete(self) -> None:
        body = b"".join(self._body)
        if len(body) > self._max_bytes:
            self._fail(f"answered more than {self._max_bytes} bytes")
        elif self._answering is not None and not self._answering.done():
            status = self._parser.get_status_code()
            self._answering.set_result(EngineAnswer(status, body, self._reading_s))

    def _fail(self, problem: str, *, was_silent: bool = False) -> None:
        if self._answering is not None and not self._answering.done():
            self._answering.set_exception(BrokenConnection(problem, was_silent=was_silent))
        self.abort()
