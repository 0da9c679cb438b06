"""Relay: passes TCP connections on to a port, until it is told to cut them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self


class Relay:
    """`async with` listens at *port*, and passes on to *to_port* of this machine."""

    def __init__(self, port: int, to_port: int) -> None:
        self.port = port
        self._to_port = to_port
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.mend()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def cut(self) -> None:
        """End all connections, and take no more."""
        if self._server is not None:
            self._server.close()
        self._server = None
        self.drop()

    def drop(self) -> None:
        """End all connections; new ones are taken."""
        for writer in self._writers:
            writer.transport.abort()

    async def mend(self) -> None:
        """Take connections again."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        with suppress(OSError):
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
            await asyncio.gather(self._pass(reader, to_writer), self._pass(to_reader, writer))
        writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with suppress(OSError):
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
        finally:
            self._writers.discard(writer)
            writer.transport.abort()
