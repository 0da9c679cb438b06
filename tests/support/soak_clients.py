"""Clients of a soak: most behave well and compare every byte; some misbehave, each in its way."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Self

import aiohttp

from echo_engine import N_TOKENS, expected_answer
from stack import CHAT
from steady_load import TIMEOUT

MISBEHAVES_EVERY = 20
"""One request in so many: 5 %."""
WHOLE_EVERY = 4
LONG_EVERY = 500
"""One prompt in so many is long enough for the process that reads long bodies."""
LONG_BYTES = 300_000
N_SYSTEM_PROMPTS = 20
SYSTEM_BYTES = 1500
N_PROBLEMS_TOLD = 5
PATIENCE_S = 5.0
"""How long those who stall do so before they leave."""
LONG_ANSWER_TOKENS = 20_000
"""An answer of some 900 KiB, more than the buffers between engine and client hold."""
TOO_LARGE_HEADER_BYTES = 100_000
"""Envoy takes 60 KiB of headers."""


def chat(number: int, *, stream: bool, more_bytes: int = 0, tokens: int = N_TOKENS) -> bytes:
    """One of several long system prompts, and a turn that no other request has."""
    system = _text(f"you are number {number % N_SYSTEM_PROMPTS}", SYSTEM_BYTES)
    turn = _text(f"request {number}", 200 + number % 600 + more_bytes)
    messages = [{"role": "system", "content": system}, {"role": "user", "content": turn}]
    asked = {"model": "m", "messages": messages, "stream": stream, "max_tokens": tokens}
    return json.dumps(asked).encode()


def _text(words: str, n_bytes: int) -> str:
    return (f"{words} " * (1 + n_bytes // len(words)))[:n_bytes]


class SoakClients:
    """`async with` sends *rate* requests a second, whatever becomes of those before.

    Attributes:
        answered: well-behaved requests whose answer was right.
        failed: well-behaved requests whose answer was not; `problems` has the first few.
        misbehaved: requests of those who misbehave, by kind.
        took_ms: until the whole answer, of all that were answered.
    """

    def __init__(self, host: str, port: int, rate: float) -> None:
        self.answered = 0
        self.failed = 0
        self.problems: list[str] = []
        self.misbehaved: Counter[str] = Counter()
        self.took_ms = array("f")
        self._host, self._port = host, port
        self._url = f"http://{host}:{port}{CHAT}"
        self._rate = rate
        self._n = 0
        self._stopping = False

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=TIMEOUT)
        self._beginning = asyncio.create_task(self._begin())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        await self._beginning
        await self._session.close()

    @property
    def n_sent(self) -> int:
        return self._n

    async def _begin(self) -> None:
        clock = asyncio.get_running_loop().time
        due_s = clock()
        async with asyncio.TaskGroup() as group:
            while not self._stopping:
                group.create_task(self._ask(self._n))
                due_s, self._n = due_s + 1 / self._rate, self._n + 1
                await asyncio.sleep(max(0.0, due_s - clock()))

    async def _ask(self, number: int) -> None:
        if number % MISBEHAVES_EVERY == MISBEHAVES_EVERY - 1:
            kinds = list(MISBEHAVIOUR.items())
            kind, misbehave = kinds[number // MISBEHAVES_EVERY % len(kinds)]
            self.misbehaved[kind] += 1
            await misbehave(self._host, self._port, number)
            return
        long = LONG_BYTES if number % LONG_EVERY == 0 else 0
        body = chat(number, stream=number % WHOLE_EVERY != 0, more_bytes=long)
        began_s = time.monotonic()
        if problem := await self._problem(body):
            self.failed += 1
            self.problems = [*self.problems, problem][:N_PROBLEMS_TOLD]
        else:
            self.answered += 1
            self.took_ms.append(1e3 * (time.monotonic() - began_s))

    async def _problem(self, body: bytes) -> str:
        headers = {"content-type": "application/json"}
        try:
            async with self._session.post(self._url, data=body, headers=headers) as response:
                got = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return repr(error)
        if response.status != 200:
            return f"status {response.status}: {got[:100]!r}"
        return "" if got == expected_answer(body) else f"other bytes: {got[:200]!r}"


@asynccontextmanager
async def _connected(
    host: str, port: int, receive_bytes: int | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection that is left with a reset; what becomes of it does not matter."""
    connection = socket.socket()
    connection.setblocking(False)
    if receive_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    with suppress(OSError, asyncio.IncompleteReadError, TimeoutError), connection:
        await asyncio.get_running_loop().sock_connect(connection, (host, port))
        reader, writer = await asyncio.open_connection(sock=connection, limit=4096)
        try:
            async with asyncio.timeout(4 * PATIENCE_S):
                yield reader, writer
        finally:
            writer.transport.abort()


def _head(*headers: str) -> bytes:
    lines = (f"POST {CHAT} HTTP/1.1", "host: soak", "content-type: application/json", *headers)
    return "\r\n".join((*lines, "", "")).encode()


async def cut_body(host: str, port: int, number: int) -> None:
    """Leaves in the middle of its body."""
    body = chat(number, stream=True)
    async with _connected(host, port) as (_, writer):
        writer.write(_head(f"content-length: {len(body)}") + body[: len(body) // 2])
        await writer.drain()
        await asyncio.sleep(0.05)


async def cut_answer(host: str, port: int, number: int) -> None:
    """Leaves with the first event of its answer."""
    body = chat(number, stream=True)
    async with _connected(host, port) as (reader, writer):
        writer.write(_head(f"content-length: {len(body)}") + body)
        await reader.readuntil(b"data: ")


async def read_slowly(host: str, port: int, number: int) -> None:
    """Takes a long answer in sips, and leaves before its end."""
    body = chat(number, stream=True, tokens=LONG_ANSWER_TOKENS)
    async with _connected(host, port, receive_bytes=4096) as (reader, writer):
        writer.write(_head(f"content-length: {len(body)}") + body)
        leaves_at_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < leaves_at_s:
            await reader.read(512)
            await asyncio.sleep(0.2)


async def send_garbage(host: str, port: int, _: int) -> None:
    """Says JSON and sends none."""
    body = os.urandom(500)
    async with _connected(host, port) as (reader, writer):
        writer.write(_head(f"content-length: {len(body)}") + body)
        await reader.read(1)


async def send_without_end(host: str, port: int, number: int) -> None:
    """Sends a body piece by piece that never ends."""
    body = chat(number, stream=True)
    async with _connected(host, port) as (_, writer):
        writer.write(_head("transfer-encoding: chunked") + b"%x\r\n%b\r\n" % (len(body), body))
        leaves_at_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < leaves_at_s:
            writer.write(b"1\r\n \r\n")
            await asyncio.sleep(0.2)


async def send_large_headers(host: str, port: int, _: int) -> None:
    """Sends more headers than anybody takes."""
    async with _connected(host, port) as (reader, writer):
        writer.write(_head(*(f"x-{i}: {'x' * 100}" for i in range(TOO_LARGE_HEADER_BYTES // 100))))
        await reader.read(1)


MISBEHAVIOUR: dict[str, Callable[[str, int, int], Awaitable[None]]] = {
    "body cut": cut_body,
    "answer cut": cut_answer,
    "slow reader": read_slowly,
    "garbage": send_garbage,
    "body without end": send_without_end,
    "headers too large": send_large_headers,
}
