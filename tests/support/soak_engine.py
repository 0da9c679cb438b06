"""All engines of a soak in one process: every address of loopback at one port is one of them.

python tests/support/soak_engine.py PORT

An answer depends on the request alone, as that of `echo_engine.py`, and leaves in two pieces. An
address that was told to leave fails its health checks from then on, and serves what still comes.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter

from aiohttp import web

from echo_engine import SERVED_BY, answer_events, whole_answer

PREFILL_S = 0.01
DECODE_S = 0.04
"""Short, so that few requests are open at once and one core is enough."""
MANY_TOKENS = b'data: {"choices":[{"index":0,"delta":{"content":"word "}}]}\n\n' * 700
"""What a long answer is made of: 42 KiB at a time."""
PAUSE_S = 0.02
"""Between them; no engine generates faster."""
KV_BLOCKS = 4096
"""Of 16 tokens: what is believed of a cache has reached its bound within minutes."""


class SoakEngine:
    """Serves until it is killed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._running: Counter[str] = Counter()
        self._leaving: set[str] = set()

    async def serve(self) -> None:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_post("/leave", self._leave)
        app.router.add_post("/{path:.*}", self._answer)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "0.0.0.0", self._port, backlog=1024).start()
        await asyncio.Event().wait()

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(status=503 if _address(request) in self._leaving else 200)

    async def _leave(self, request: web.Request) -> web.Response:
        self._leaving.add(_address(request))
        return web.Response()

    async def _metrics(self, request: web.Request) -> web.Response:
        labels = 'model_name="m"'
        lines = [
            f"vllm:num_requests_running{{{labels}}} {self._running[_address(request)]}",
            f"vllm:num_requests_waiting{{{labels}}} 0",
            f"vllm:kv_cache_usage_perc{{{labels}}} 0.25",
            f'vllm:cache_config_info{{block_size="16",num_gpu_blocks="{KV_BLOCKS}"}} 1.0',
        ]
        return web.Response(text="\n".join([*lines, ""]))

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        try:
            asked = json.loads(body)
            streams, n_tokens = asked["stream"], asked["max_tokens"]
        except (ValueError, KeyError, TypeError):
            return web.json_response({"error": {"message": "no JSON"}}, status=400)
        address = _address(request)
        self._running[address] += 1
        try:
            headers = {SERVED_BY: address}
            if not streams:
                await asyncio.sleep(PREFILL_S + DECODE_S)
                return web.Response(body=whole_answer(body), headers=headers)
            response = web.StreamResponse(headers=headers | {"content-type": "text/event-stream"})
            await response.prepare(request)
            await _stream(response, body, n_tokens)
            return response
        finally:
            self._running[address] -= 1


async def _stream(response: web.StreamResponse, body: bytes, n_tokens: int) -> None:
    """All events, with more of them where many tokens were asked for."""
    await asyncio.sleep(PREFILL_S)
    first, *others = answer_events(body)
    await response.write(first)
    await asyncio.sleep(DECODE_S)
    for _ in range(n_tokens // 1000):
        await response.write(MANY_TOKENS)
        await asyncio.sleep(PAUSE_S)
    await response.write(b"".join(others))
    await response.write_eof()


def _address(request: web.Request) -> str:
    assert request.transport is not None
    host, port = request.transport.get_extra_info("sockname")[:2]
    return f"{host}:{port}"


if __name__ == "__main__":
    asyncio.run(SoakEngine(int(sys.argv[1])).serve())
