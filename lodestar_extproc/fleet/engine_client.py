"""EngineClient: fetches pages from engines, over connections that are kept.

A general client takes several times as long for a page, which hundreds of endpoints make most of a
core. This one knows little: no redirects, no cookies, no compression. It does not know what a
page means.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from functools import lru_cache
from typing import NamedTuple, cast
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpResponseParser

from lodestar_extproc.encryption import UpstreamTls
from lodestar_extproc.fleet.engine_tls import BadCertificates, TlsContexts, check_names

KEEPALIVE_S = 4.0
"""vLLM's HTTP server closes an idle connection after 5 s; we close first."""
SWEEP_S = 1.0
"""Idle connections are looked at so often: at most 4 + 1 s old, none has met vLLM's 5 s by then."""
MAX_HEADER_BYTES = 64 * 1024
"""As much as Envoy takes (`max_request_headers_kb`, 60): more is no engine's."""
MAX_TARGETS = 8192
"""URLs whose parts are remembered: two for each of some thousand endpoints."""


class EngineAnswer(NamedTuple):
    """An answer that came whole.

    Attributes:
        reading_s: how long reading it kept this thread.
    """

    status: int
    body: bytes
    reading_s: float = 0.0


class EngineSilent(Exception):  # noqa: N818  (the condition's name)
    """There was no connection, or what came over it was no answer."""


class Target(NamedTuple):
    """Where a URL leads, and the request that is sent there."""

    host: str
    port: int
    is_encrypted: bool
    request: bytes
    has_body: bool = True


class _Origin(NamedTuple):
    """What connections are alike by."""

    host: str
    port: int
    tls: UpstreamTls | None
    context: ssl.SSLContext | None


class EngineClient:
    """Used in one event loop, and closed in it."""

    def __init__(self) -> None:
        self._contexts = TlsContexts()
        self._idle: dict[_Origin, list[EngineConnection]] = {}
        self._open: set[EngineConnection] = set()
        self._swept_at_s = 0.0

    async def get(
        self,
        url: str,
        *,
        within_s: float,
        max_bytes: int,
        tls: UpstreamTls | None = None,
        method: str = "GET",
        host: str = "",
    ) -> EngineAnswer:
        """What *url* answers.

        Args:
            max_bytes: of the answer's body.
            tls: for an `https` one.
            host: of the Host header; empty for the URL's.

        Raises:
            EngineSilent, OSError: there is none, or one that is too large.
            TimeoutError: none came *within_s*.
            ValueError: it is no URL, or there are no certificates to ask it by.
        """
        target = target_of(url, method, host)
        # A context that is made anew, of new files, makes connections anew.
        context = None if not target.is_encrypted or tls is None else self._contexts.of(tls)
        if target.is_encrypted and context is None:
            raise ValueError(f"{url}: it is not said how to encrypt")
        origin = _Origin(target.host, target.port, tls if context else None, context)
        async with asyncio.timeout(within_s):
            while True:
                kept = self._take_idle(origin)
                connection = kept or await self._connect(origin)
                try:
                    answer = await connection.ask(target, max_bytes)
                except BrokenConnection as error:
                    if kept is not None and error.was_silent:
                        continue  # closed while it was idle, which says nothing of the engine
                    raise EngineSilent(f"{url} {error}") from None
                if connection.is_reusable:
                    self._idle.setdefault(origin, []).append(connection)
                return answer

    def close(self) -> None:
        """Close every connection."""
        self._idle.clear()
        for connection in tuple(self._open):
            connection.abort()

    async def _connect(self, origin: _Origin) -> EngineConnection:
        made = EngineConnection(self._open)
        loop, tls = asyncio.get_running_loop(), origin.tls
        if tls is None:
            await loop.create_connection(lambda: made, origin.host, origin.port)
            return made
        transport, _ = await loop.create_connection(
            lambda: made,
            origin.host,
            origin.port,
            ssl=origin.context,
            # An address is no SNI: none is sent then, as Envoy sends none that it was not given.
            server_hostname=tls.server_name or origin.host,
        )
        try:
            check_names(tls, transport.get_extra_info("peercert"))
        except BadCertificates as error:
            transport.abort()
            raise EngineSilent(f"{origin.host}:{origin.port}: {error}") from None
        return made

    def _take_idle(self, origin: _Origin) -> EngineConnection | None:
        """The one to *origin* that was used last."""
        self._sweep()
        idle = self._idle.get(origin)
        while idle:
            if (connection := idle.pop()).is_reusable:
                return connection
        return None

    def _sweep(self) -> None:
        """Close what has been idle for long; what its server closed is forgotten."""
        now_s = asyncio.get_running_loop().time()
        if now_s < self._swept_at_s + SWEEP_S:
            return
        self._swept_at_s = now_s
        for origin, idle in list(self._idle.items()):
            for connection in idle:
                if now_s - connection.used_at_s > KEEPALIVE_S:
                    connection.abort()
            self._idle[origin] = [c for c in idle if c.is_reusable]
            if not self._idle[origin]:
                del self._idle[origin]


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
        self._parser = HttpResponseParser(self)
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
        self._begin()
        self.is_reusable = False
        if self._transport is None or self._transport.is_closing():
            raise BrokenConnection("was closed", was_silent=True)
        try:
            self._transport.write(target.request)
            answer = await self._answering
        except BaseException:
            self.abort()
            raise
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
        self._among.add(self)

    def data_received(self, data: bytes) -> None:
        began_s = time.perf_counter()
        if self._answering is None or self._answering.done():
            self.abort()  # it speaks unasked
            return
        self._n_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            self._fail(f"did not answer in HTTP: {error}")
        if self._n_bytes > self._max_bytes + MAX_HEADER_BYTES:
            self._fail(f"answered more than {self._max_bytes} bytes")
        self._reading_s += time.perf_counter() - began_s

    def connection_lost(self, error: Exception | None) -> None:
        self._among.discard(self)
        self.is_reusable = False
        if self._answering is None or self._answering.done():
            return
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


@lru_cache(maxsize=MAX_TARGETS)
def target_of(url: str, method: str = "GET", host: str = "") -> Target:
    """Where *url* leads, and how it is asked there.

    Raises:
        ValueError: it is no URL of HTTP.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no URL of HTTP")
    is_encrypted = parts.scheme == "https"
    port = parts.port or (443 if is_encrypted else 80)
    path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
    # Compressing a page costs an engine more than sending it.
    request = (
        f"{method} {path} HTTP/1.1\r\nHost: {host or parts.netloc}\r\nAccept: */*\r\n"
        "Accept-Encoding: identity\r\nUser-Agent: lodestar-extproc\r\n\r\n"
    )
    has_body = method != "HEAD"
    return Target(parts.hostname, port, is_encrypted, request.encode("ascii"), has_body)
