"""EngineClient: fetches pages from engines, over connections that are kept.

A general client takes several times as long for a page, which hundreds of endpoints make most of a
core. This one knows little: no redirects, no cookies, no compression. It does not know what a
page means.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import NamedTuple

from lodestar_extproc.encryption import UpstreamTls
from lodestar_extproc.fleet.engine_connection import (
    BrokenConnection,
    EngineAnswer,
    EngineConnection,
)
from lodestar_extproc.fleet.engine_target import target_of
from lodestar_extproc.fleet.engine_tls import BadCertificates, TlsContexts, check_names

KEEPALIVE_S = 4.0
"""vLLM's HTTP server closes an idle connection after 5 s; we close first."""
SWEEP_S = 1.0
"""Idle connections are looked at so often: at most 4 + 1 s old, none has met vLLM's 5 s by then."""


class EngineSilent(Exception):  # noqa: N818  (the condition's name)
    """There was no connection, or what came over it was no answer."""


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
