"""An engine in a process of its own: its answer depends on the request alone, whoever serves it.

python tests/support/echo_engine.py PORT [FIRST_HOST N_HOSTS]

So every answer can be compared byte by byte, and a byte of another's answer shows. It can refuse,
reset, hang, lie or be slow on request, and tells when it was tried. It serves at *N_HOSTS* loopback
addresses from *FIRST_HOST* on: as many engines in one process.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import socket
import struct
import sys
import time
from collections.abc import Sequence
from ipaddress import ip_address

from aiohttp import web

from metric_pages import a_vllm_page

N_TOKENS = 8
PREFILL_S = 0.02
BETWEEN_TOKENS_S = 0.06
"""About half a second an answer."""
SERVED_BY = "x-served-by"
NO_LINGER = struct.pack("ii", 1, 0)
SLOW_PREFILL_S = 1.0
LIES = {
    "a page": (b"<html><body>It works!</body></html>", "text/html"),
    "nothing": (b"", "text/event-stream"),
    "only [DONE]": (b"data: [DONE]\n\n", "text/event-stream"),
}
FAULTS = ("none", "busy", "reset", "hang", "slow", "stall", "leaves", *LIES)
PAGES = ("none", "page", "page hangs", "page is huge", "page is too large", "page is garbage")
HUGE_PAGE_BYTES, TOO_LARGE_PAGE_BYTES = 3_000_000, 8_000_000
"""Just under what is read of a page, and a size well above (3 MiB is the limit)."""


def answer_events(body: bytes) -> list[bytes]:
    """A streamed answer to *body*, event by event; the role comes with the first token."""
    words = [_event({"content": word}) for word in _words(body)]
    role = _event({"role": "assistant", "content": ""})
    usage = {"prompt_tokens": len(body) // 4, "completion_tokens": N_TOKENS}
    end = b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"
    return [role + words[0], *words[1:], end + b"data: [DONE]\n\n"]


def whole_answer(body: bytes) -> bytes:
    """An answer to *body* in one piece."""
    return json.dumps({"choices": [{"message": {"content": "".join(_words(body))}}]}).encode()


def expected_answer(body: bytes) -> bytes:
    """Every byte an engine answers to *body*."""
    return b"".join(answer_events(body)) if _streams(body) else whole_answer(body)


def _words(body: bytes) -> list[str]:
    digest = hashlib.sha256(body).hexdigest()
    return [f"{digest[4 * i : 4 * i + 16]} " for i in range(N_TOKENS)]


def _event(delta: dict[str, str]) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n"


def _streams(body: bytes) -> bool:
    return json.loads(body)["stream"] is True


class EchoEngine:
    """Serves until it is killed."""

    def __init__(self, port: int, hosts: Sequence[str] = ("127.0.0.1",)) -> None:
        self._port = port
        self._hosts = hosts
        self._fault = "none"
        self._page = "none"
        self._n_running = 0
        self._tried_at_s: list[float] = []
        self._mended = asyncio.Event()

    async def serve(self) -> None:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_post("/fault", self._set_fault)
        app.router.add_get("/tried", self._show_tried)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._show_metrics)
        app.router.add_post("/{path:.*}", self._answer)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        await runner.setup()
        for host in self._hosts:
            await web.TCPSite(runner, host, self._port, backlog=1024).start()
        await asyncio.Event().wait()

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(status=503 if self._fault == "leaves" else 200)

    async def _show_tried(self, _: web.Request) -> web.Response:
        """When inference was asked for, in monotonic seconds."""
        return web.json_response(self._tried_at_s)

    async def _set_fault(self, request: web.Request) -> web.Response:
        fault = await request.text()
        assert fault in FAULTS or fault in PAGES
        if fault in PAGES:
            self._page = fault
        if fault in FAULTS:
            self._fault = fault
        if self._fault in ("hang", "stall"):
            self._mended.clear()
        else:
            self._mended.set()
        return web.Response()

    async def _show_metrics(self, request: web.Request) -> web.StreamResponse:
        if self._page == "none":
            raise web.HTTPNotFound
        if self._page == "page hangs":
            await asyncio.Event().wait()
        if self._page == "page is garbage":
            return web.Response(body=random.randbytes(20_000))
        running = float(self._n_running)
        page = f"vllm:num_requests_running {running}\nvllm:num_requests_waiting 0.0\n".encode()
        sizes = {"page is huge": HUGE_PAGE_BYTES, "page is too large": TOO_LARGE_PAGE_BYTES}
        if size := sizes.get(self._page):
            vllm = a_vllm_page(running, 0.0)
            page = vllm * (size // len(vllm))
        return web.Response(body=page)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self._tried_at_s.append(time.monotonic())
        body = await request.read()
        self._n_running += 1
        try:
            return await self._answer_to(request, body)
        finally:
            self._n_running -= 1

    async def _answer_to(self, request: web.Request, body: bytes) -> web.StreamResponse:
        if self._fault == "busy":
            return web.Response(status=503)
        if self._fault == "reset":
            return _reset(request)
        if self._fault in LIES:
            lie, kind = LIES[self._fault]
            return web.Response(body=lie, headers={"content-type": kind})
        headers = {SERVED_BY: f"127.0.0.1:{self._port}"}
        if not _streams(body):
            await self._prefill()
            await asyncio.sleep(BETWEEN_TOKENS_S * N_TOKENS)
            return web.Response(body=whole_answer(body), headers=headers)
        response = web.StreamResponse(headers=headers | {"content-type": "text/event-stream"})
        # As vLLM: headers leave before anything is computed.
        await response.prepare(request)
        await self._prefill()
        for event in answer_events(body):
            await response.write(event)
            await asyncio.sleep(BETWEEN_TOKENS_S)
            if self._fault == "stall":
                await self._mended.wait()
        await response.write_eof()
        return response

    async def _prefill(self) -> None:
        if self._fault == "hang":
            await self._mended.wait()
        await asyncio.sleep(SLOW_PREFILL_S if self._fault == "slow" else PREFILL_S)


def _reset(request: web.Request) -> web.Response:
    assert request.transport is not None
    sock = request.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    request.transport.abort()
    return web.Response()


async def main() -> None:
    port, *hosts = sys.argv[1:]
    if hosts:
        first, n = ip_address(hosts[0]), int(hosts[1])
        await EchoEngine(int(port), [str(first + i) for i in range(n)]).serve()
    await EchoEngine(int(port)).serve()


if __name__ == "__main__":
    asyncio.run(main())
