"""An engine that answers by rote, so that answers can be compared byte by byte."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

from aiohttp import web


@dataclass
class StubEngine:
    """Answers every POST; how, is set on it."""

    name: str
    port: int = 0
    status: int = 200
    prefill_s: float = 0.0
    between_tokens_s: float = 0.0
    n_tokens: int = 5
    keep_alive: bool = False
    seen: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    _runner: web.AppRunner | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def token(self, i: int) -> bytes:
        delta = {"content": f"{self.name}-{i} "}
        return (
            b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n"
        )

    def stream(self) -> bytes:
        """All of a streamed answer."""
        role = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
        usage = (
            b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":%d}}\n\n'
            % self.n_tokens
        )
        start = (b": keep-alive\n\n" if self.keep_alive else b"") + role
        return start + b"".join(map(self.token, range(self.n_tokens))) + usage + b"data: [DONE]\n\n"

    def whole(self) -> bytes:
        """All of an answer in one piece."""
        text = "".join(f"{self.name}-{i} " for i in range(self.n_tokens))
        return json.dumps({"choices": [{"message": {"content": text}}]}).encode()

    async def start(self) -> None:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        # A request is over when its client is: Envoy resets the connection on an abort.
        self._runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.seen.append((request.path, {k.lower(): v for k, v in request.headers.items()}, body))
        if self.status != 200:
            return web.Response(status=self.status, text=f"{self.name} is busy")
        if request.method == "GET":
            return web.Response(text=f"{self.name} {request.path}")
        if b'"stream": true' not in body:
            await asyncio.sleep(self.prefill_s)
            return web.Response(body=self.whole(), content_type="application/json")
        return await self._answer_in_parts(request)

    async def _answer_in_parts(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        events = [event + b"\n\n" for event in self.stream().split(b"\n\n")[:-1]]
        if self.keep_alive:
            await response.write(events.pop(0))
        await asyncio.sleep(self.prefill_s)
        # The role comes together with the first token.
        await response.write(b"".join(events[:2]))
        for event in events[2:]:
            await asyncio.sleep(self.between_tokens_s)
            await response.write(event)
        await response.write_eof()
        return response
