"""AsyncioTransport: calls carried by an HTTP/2 server of our own on the event loop.

Where grpcio has a thread of its own, which takes the interpreter from the loop and gives it back
for every event, here nothing but the loop runs.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from lodestar_extproc.server_tls import ServerTls, ssl_context
from lodestar_extproc.transport.addresses import bound
from lodestar_extproc.transport.calls import SHARED_AGE_S, Services
from lodestar_extproc.transport.http2_protocol import GREETING_S, Http2Protocol

LOOK_AGAIN_S = 0.02
"""Between two looks at whether the last connection is gone."""


class AsyncioTransport:
    """Owns listening sockets and connections."""

    def __init__(self) -> None:
        self._servers: list[asyncio.Server] = []
        self._paths: list[Path] = []
        self._open: set[Http2Protocol] = set()

    async def listen(
        self,
        addresses: Sequence[str],
        services: Services,
        tls: ServerTls | None = None,
        *,
        shared: bool = False,
    ) -> tuple[int, ...]:
        """As of `CallTransport`."""
        encryption = None if tls is None or not addresses else ssl_context(tls, ["h2"])

        def protocol() -> Http2Protocol:
            return Http2Protocol(
                services,
                encrypted=encryption is not None,
                max_age_s=SHARED_AGE_S if shared else None,
                opened=self._open.add,
                closed=self._open.discard,
            )

        # All or none: an address that is taken leaves nothing listening.
        sockets: list[list[socket.socket]] = []
        try:
            sockets.extend(bound(address, shared=shared) for address in addresses)
        except OSError:
            for each in (each for group in sockets for each in group):
                each.close()
            raise
        for group in sockets:
            for each in group:
                self._servers.append(await _served(each, protocol, encryption))
                if each.family == socket.AF_UNIX and isinstance(path := each.getsockname(), str):
                    self._paths.append(Path(path))
        return tuple(_port(group[0]) for group in sockets)

    async def stop(self, grace_s: float) -> None:
        """As of `CallTransport`."""
        for server in self._servers:
            server.close()
        for path in self._paths:
            with suppress(OSError):
                path.unlink()
        for protocol in tuple(self._open):
            protocol.connection.drain()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._all_closed()
        for protocol in tuple(self._open):
            protocol.connection.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_AGAIN_S):
                await self._all_closed()
        for protocol in tuple(self._open):
            protocol.abort()
        await self._all_closed()

    async def _all_closed(self) -> None:
        while self._open:  # noqa: ASYNC110  (for a few turns, once in a process)
            await asyncio.sleep(LOOK_AGAIN_S)


async def _served(
    listening: socket.socket,
    protocol: Callable[[], Http2Protocol],
    encryption: ssl.SSLContext | None,
) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    timeout_s = None if encryption is None else GREETING_S
    if listening.family == socket.AF_UNIX:
        return await loop.create_unix_server(
            protocol, sock=listening, ssl=encryption, ssl_handshake_timeout=timeout_s
        )
    return await loop.create_server(
        protocol, sock=listening, ssl=encryption, ssl_handshake_timeout=timeout_s
    )


def _port(listening: socket.socket) -> int:
    return 0 if listening.family == socket.AF_UNIX else int(listening.getsockname()[1])
