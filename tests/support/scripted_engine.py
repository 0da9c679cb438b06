"""An engine that answers by a script: what public reports say engines and proxies answer wrongly."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from dataclasses import dataclass, field

from aiohttp import web

SSE = "text/event-stream"
Part = tuple[float, bytes]
"""Seconds to wait, and what to write then."""


def chunk(reason: str | None = None, **delta) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


ROLE = chunk(role="assistant", content="")
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Script:
    """One answer; *hangs* leaves it open after the last part."""

    parts: tuple[Part, ...] = ()
    status: int = 200
    content_type: str = SSE
    headers: dict[str, str] = field(default_factory=dict)
    hangs: bool = False
    breaks: bool = False


def good(ttft_s: float = 0.15, n_tokens: int = 4) -> Script:
    tokens = [(0.03, chunk(content=f"word{i} ")) for i in range(n_tokens)]
    end = (0.0, chunk("stop") + DONE)
    return Script(((ttft_s, ROLE), *tokens, end))


def in_one_piece(after_s: float, **fields: object) -> Script:
    """A JSON document; a chat's answer unless *fields* say else."""
    answer = {"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}]}
    data = json.dumps(fields or answer).encode()
    return Script(((after_s, data),), content_type="application/json")


def with_usage(prompt_tokens: int, cached_tokens: int = 0) -> Script:
    """What an engine counts, in an answer of one piece."""
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": 1,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    }
    choices = [{"message": {"content": "hello"}, "finish_reason": "stop"}]
    return in_one_piece(0.002, choices=choices, usage=usage)


def _refusal(status: int, **headers: str) -> Script:
    body = b'{"error": {"message": "not now", "type": "refused"}}'
    return Script(((0.002, body),), status, "application/json", headers)


WRONG = {
    "HTML under 200": Script(
        ((0.002, b"<!DOCTYPE html><h1>It works</h1>"),), content_type="text/html"
    ),
    "an empty 200": Script(),
    "204": Script(status=204),
    "only [DONE]": Script(((0.002, DONE),)),
    "a role, then [DONE]": Script(((0.002, ROLE + DONE),)),
    "JSON of no API": Script(((0.002, b'{"status": "ok"}'),), content_type="application/json"),
    "text events": Script(((0.002, b"data: hello there\n\n" + DONE),)),
    "401": _refusal(401),
    "429": _refusal(429),
    "429, Retry-After": _refusal(429, **{"retry-after": "2"}),
    "a redirection": Script(status=302, headers={"location": "/elsewhere"}),
    "abort at first": Script(((0.02, ROLE), (0.005, chunk("abort", content="") + DONE))),
    "a token, then abort": Script(
        ((0.01, ROLE + chunk(content="a")), (0.01, chunk("abort") + DONE))
    ),
    "an error event": Script(((0.01, b'event: error\ndata: {"message": "dead"}\n\n'),)),
    "500": _refusal(500),
    "a token, then silence": Script(((0.01, ROLE + chunk(content="a")),), hangs=True),
    "a token, then a reset": Script(((0.01, ROLE + chunk(content="a")),), breaks=True),
}


def in_gzip(script: Script) -> Script:
    """The same, compressed as it comes."""
    packer = zlib.compressobj(wbits=31)
    parts = []
    for wait_s, text in script.parts:
        parts.append((wait_s, packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH)))
    parts.append((0.0, packer.flush()))
    assert gzip.decompress(b"".join(data for _, data in parts))
    return Script(tuple(parts), headers={"content-encoding": "gzip"})


class ScriptedEngine:
    """Answers every POST by `script`; counts them."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.n_asked = 0
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_post("/{path:.*}", self._answer)
        app.router.add_get("/{path:.*}", self._health)
        self._runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        self.n_asked += 1
        script = self.script
        headers = {"content-type": script.content_type} | script.headers
        if not script.parts:
            return web.Response(status=script.status, headers=headers)
        response = web.StreamResponse(status=script.status, headers=headers)
        await response.prepare(request)
        for wait_s, data in script.parts:
            await asyncio.sleep(wait_s)
            await response.write(data)
        if script.hangs:
            await asyncio.sleep(3600.0)
        if script.breaks and request.transport is not None:
            request.transport.close()
            return response
        await response.write_eof()
        return response
