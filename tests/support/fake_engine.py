"""FakeEngine: an HTTP server that answers as it is told, and remembers who asked when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.test_utils import TestServer

from lodestar_extproc.endpoint import Endpoint
from metric_pages import a_short_page, part_of


class FakeEngine:
    def __init__(self) -> None:
        self.page = a_short_page()
        self.status = 200
        self.delay_s = 0.0
        self.gives_parts = False
        self.part: bytes | None = None
        self.status_of_part: int | None = None
        self.delay_of_part_s = 0.0
        self.asked_at_s: list[float] = []
        self.asked_for: list[str] = []
        self.connections: set[object] = set()
        self.open = 0
        self.most_open = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.asked_at_s.append(time.monotonic())
        self.asked_for.append(request.path_qs)
        self.connections.add(request.transport)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            is_part = "name[]" in request.query
            await asyncio.sleep(self.delay_of_part_s if is_part else self.delay_s)
            status = (self.status_of_part if is_part else None) or self.status
            page = self.page
            if is_part and self.gives_parts and request.path == "/metrics/":
                names = request.query.getall("name[]")
                page = part_of(page, names) if self.part is None else self.part
            return web.Response(status=status, body=page, headers=self.headers())
        finally:
            self.open -= 1

    def headers(self) -> dict[str, str]:
        return {"Location": "/elsewhere"} if 300 <= self.status < 400 else {}

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Endpoint]:
        app = web.Application()
        app.router.add_get("/{path:.*}", self.answer)
        async with TestServer(app) as server:
            url = str(server.make_url(""))
            yield Endpoint(
                f"{server.host}:{server.port}",
                metrics_url=f"{url}/metrics",
                health_url=f"{url}/health",
            )
