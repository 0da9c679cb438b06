"""Hub: passes frames on between the workers of one machine, where there is no store to do it.

A worker names its channel and then sends messages; everyone on the channel gets each of them, the
sender too, as from a store. Each is four bytes of length, big endian, and so many bytes. Nothing is
kept: who is too slow misses some, which the numbers of frames show.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Self

from lodestar_extproc.sharing.store import StoreError

_LENGTH_BYTES = 4  # 4 GiB at most: what is longer than a frame may be ends the connection first
MAX_MESSAGE_BYTES = 16 * 2**20
"""As long as a frame may be (`sharer.py`); what claims to be longer is not a worker of ours."""
MAX_UNREAD_BYTES = 4 * 2**20
"""For one worker: several seconds of frames at 500 requests a second. It then misses some."""


async def _read(reader: asyncio.StreamReader) -> bytes:
    """One message.

    Raises:
        EOFError: there are no more, or it is none of ours.
    """
    return await _read_rest(reader, await reader.readexactly(_LENGTH_BYTES))


async def _read_rest(reader: asyncio.StreamReader, beginning: bytes) -> bytes:
    length = int.from_bytes(beginning)
    if length > MAX_MESSAGE_BYTES:
        raise EOFError(f"a message of {length} bytes")
    return await reader.readexactly(length)


def _write(writer: asyncio.StreamWriter, message: bytes) -> None:
    writer.write(len(message).to_bytes(_LENGTH_BYTES) + message)


class Hub:
    """Serves on a Unix socket while `async with` lasts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._listening: dict[bytes, set[asyncio.StreamWriter]] = {}
        self._open: dict[asyncio.Task[None] | None, asyncio.StreamWriter] = {}

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, self._path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._open.values():
            writer.close()
        await asyncio.gather(*filter(None, self._open))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._open[task] = writer
        with suppress(EOFError, OSError):
            listening = self._listening.setdefault(await _read(reader), set())
            listening.add(writer)
            try:
                while True:
                    self._pass_on(await _read(reader), listening)
            finally:
                listening.discard(writer)
        writer.close()
        del self._open[task]

    def _pass_on(self, message: bytes, listening: set[asyncio.StreamWriter]) -> None:
        for writer in listening:
            if writer.transport.get_write_buffer_size() < MAX_UNREAD_BYTES:
                _write(writer, message)


class HubStore:
    """A worker's connection to its hub; see `store.FrameStore`."""

    def __init__(self, path: Path, channel: str) -> None:
        self._path = path
        self._channel = channel

    async def __aenter__(self) -> Self:
        try:
            self._reader, self._writer = await asyncio.open_unix_connection(self._path)
            _write(self._writer, self._channel.encode())
        except OSError as error:
            raise StoreError(f"no hub of workers: {error}") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    def end(self) -> None:
        """Refuse from now on: the connection closes."""
        self._writer.close()

    async def publish(self, data: bytes) -> None:
        """See `FrameStore`."""
        try:
            _write(self._writer, data)
            await self._writer.drain()
        except OSError as error:
            raise StoreError(f"no hub of workers: {error}") from error

    async def next(self, timeout_s: float) -> bytes | None:
        """See `FrameStore`."""
        beginning = b""
        try:
            async with asyncio.timeout(timeout_s):
                beginning = await self._reader.readexactly(_LENGTH_BYTES)
                return await _read_rest(self._reader, beginning)
        except TimeoutError as error:
            if not beginning:
                return None
            raise StoreError("the hub of workers stopped in a message") from error
        except (OSError, EOFError) as error:
            raise StoreError(f"no hub of workers: {error}") from error
