"""A steady number of clients that ask, compare every byte of the answer, and ask again."""

from __future__ import annotations

import asyncio
import json
import math
import time
from dataclasses import dataclass
from typing import Self

import aiohttp

from echo_engine import SERVED_BY, expected_answer
from stack import CHAT

N_CLIENTS = 64
WHOLE_EVERY = 16
"""One client in so many asks for answers in one piece."""
TIMEOUT = aiohttp.ClientTimeout(total=60.0)


@dataclass(slots=True)
class Sent:
    """One request and what came of it; times in monotonic seconds."""

    number: int
    streamed: bool
    started_s: float
    first_byte_s: float | None = None
    ended_s: float | None = None
    served_by: str = ""
    problem: str = ""

    @property
    def waited_s(self) -> float:
        """Until the first byte of the answer's body, or the end where none came."""
        reached_s = self.first_byte_s or self.ended_s
        assert reached_s is not None
        return reached_s - self.started_s


class SteadyLoad:
    """`async with` starts the clients, and lets them finish what they asked last.

    Attributes:
        ended: requests that are over, in the order of their ends.
        n_streaming: streamed answers that have begun and not ended.
    """

    def __init__(self, url: str, n_clients: int = N_CLIENTS) -> None:
        self.ended: list[Sent] = []
        self.open: set[int] = set()
        self.n_streaming = 0
        self._url = url + CHAT
        self._n_clients = n_clients
        self._n_started = 0
        self._stopping = False
        self._clients: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=TIMEOUT)
        self._clients = [asyncio.create_task(self._client(i)) for i in range(self._n_clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        await self._session.close()

    async def stop(self) -> None:
        """Start no more requests; wait for those under way."""
        self._stopping = True
        await asyncio.gather(*self._clients)

    @property
    def problems(self) -> list[Sent]:
        """Requests whose answer was not what it had to be."""
        return [sent for sent in self.ended if sent.problem]

    def started_between(self, begin_s: float, end_s: float = math.inf) -> list[Sent]:
        return [sent for sent in self.ended if begin_s <= sent.started_s < end_s]

    async def _client(self, number: int) -> None:
        # Not all at once.
        await asyncio.sleep(0.5 * number / self._n_clients)
        while not self._stopping:
            await self._ask(stream=number % WHOLE_EVERY != 0)

    async def _ask(self, *, stream: bool) -> None:
        self._n_started += 1
        sent = Sent(self._n_started, stream, time.monotonic())
        message = {"role": "user", "content": f"request {sent.number}"}
        body = json.dumps({"model": "m", "messages": [message], "stream": stream}).encode()
        self.open.add(sent.number)
        try:
            await self._compare(sent, body)
        except (aiohttp.ClientError, TimeoutError) as error:
            sent.problem = repr(error)
        sent.ended_s = time.monotonic()
        self.open.discard(sent.number)
        self.ended.append(sent)

    async def _compare(self, sent: Sent, body: bytes) -> None:
        headers = {"content-type": "application/json"}
        async with self._session.post(self._url, data=body, headers=headers) as response:
            sent.served_by = response.headers.get(SERVED_BY, "")
            got = bytearray()
            try:
                async for chunk in response.content.iter_any():
                    if sent.first_byte_s is None:
                        sent.first_byte_s = time.monotonic()
                        self.n_streaming += sent.streamed
                    got += chunk
            finally:
                self.n_streaming -= sent.streamed and sent.first_byte_s is not None
        if response.status != 200:
            sent.problem = f"status {response.status}: {bytes(got[:100])!r}"
        elif got != expected_answer(body):
            sent.problem = f"other bytes: {bytes(got)!r}"
