"""AskedEngine: says of itself what an engine of some kind says, on a free port."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from aiohttp import web

from metric_pages import a_vllm_page

VLLM: Mapping[str, object] = {
    "/health": "",
    "/version": {"version": "0.11.0"},
    "/v1/models": {"object": "list", "data": [{"id": "llama-3.1-8b"}]},
    "/metrics": a_vllm_page(),
}
SGLANG: Mapping[str, object] = {
    "/health": "",
    "/get_server_info": {"version": "0.5.2"},
    "/v1/models": {"data": [{"id": "qwen"}]},
    "/metrics": b"sglang:num_running_reqs 1.0\nsglang:max_total_num_tokens 40000.0\n",
}
PROXIED: Mapping[str, object] = {"/v1/models": {"data": [{"id": "llama-3.1-8b"}]}}
"""Behind a proxy that lets through the API alone."""


class AskedEngine:
    """`async with AskedEngine(pages)`."""

    def __init__(self, pages: Mapping[str, object]) -> None:
        self._pages = pages
        self._runner: web.AppRunner | None = None
        self.address = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.address = f"127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        page = self._pages.get(request.path)
        if page is None:
            return web.Response(status=404)
        if isinstance(page, bytes):
            return web.Response(body=page)
        return web.json_response(page) if isinstance(page, dict) else web.Response(text=str(page))
