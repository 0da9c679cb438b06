"""OpenLoad: requests begin at a steady rate, whatever becomes of those before."""

from __future__ import annotations

import asyncio
from typing import Self

import aiohttp

from steady_load import TIMEOUT, SteadyLoad


class OpenLoad(SteadyLoad):
    """`async with` starts *rate* requests a second, of which a quarter wants one piece."""

    def __init__(self, url: str, rate: float) -> None:
        super().__init__(url, n_clients=0)
        self._rate = rate
        self._asked: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=TIMEOUT)
        self._clients = [asyncio.create_task(self._begin())]
        return self

    async def _begin(self) -> None:
        clock = asyncio.get_running_loop().time
        due_s, n = clock(), 0
        while not self._stopping:
            asking = asyncio.create_task(self._ask(stream=n % 4 != 0))
            self._asked.add(asking)
            asking.add_done_callback(self._asked.discard)
            due_s, n = due_s + 1 / self._rate, n + 1
            await asyncio.sleep(max(0.0, due_s - clock()))
        await asyncio.gather(*self._asked)
