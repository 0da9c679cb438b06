"""An engine that keeps responses and conversations by id, and knows those of no other."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

from aiohttp import web

_numbers = itertools.count()
UNKNOWN = {"error": {"message": "no such response", "code": "not_found"}}


def event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


class KeepingEngine:
    """The Responses API with a store, as vLLM and others have it.

    Attributes:
        asked: method and path of all that came, but for probes.
        kept: responses by id.
    """

    def __init__(self, reply_tokens: int = 40) -> None:
        self.reply_tokens = reply_tokens
        self.asked: list[tuple[str, str]] = []
        self.kept: dict[str, dict[str, Any]] = {}
        self.conversations: set[str] = set()
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_get("/health", self._health)
        for prefix in ("", "/openai"):
            responses = prefix + "/v1/responses"
            app.router.add_post(responses, self._create)
            app.router.add_get(responses + "/{id}", self._fetch)
            app.router.add_get(responses + "/{id}/input_items", self._items)
            app.router.add_post(responses + "/{id}/cancel", self._cancel)
            app.router.add_delete(responses + "/{id}", self._delete)
        app.router.add_post("/v1/conversations", self._converse)
        app.router.add_get("/v1/conversations/{id}", self._conversation)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def end(self, response_id: str, status: str = "completed") -> None:
        """What runs in the background has come to its end."""
        self.kept[response_id]["status"] = status

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    def _note(self, request: web.Request) -> None:
        self.asked.append((request.method, request.path))

    async def _create(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        self._note(request)
        previous, conversation = body.get("previous_response_id"), body.get("conversation")
        if (previous and previous not in self.kept) or (
            conversation and conversation not in self.conversations
        ):
            return web.json_response(UNKNOWN, status=404)
        made = {
            "id": f"resp_{next(_numbers)}",
            "object": "response",
            "status": "queued" if body.get("background") else "completed",
            "output": [] if body.get("background") else [self._output()],
            "usage": None if body.get("background") else self._usage(),
        }
        if body.get("store") is not False:
            self.kept[made["id"]] = made
        if not body.get("stream"):
            await asyncio.sleep(0.02)
            return web.json_response(made)
        return await self._stream(request, made)

    def _output(self) -> dict[str, Any]:
        return {"type": "message", "content": [{"type": "output_text", "text": "so it is"}]}

    def _usage(self) -> dict[str, Any]:
        return {"input_tokens": 10, "output_tokens": self.reply_tokens}

    async def _stream(self, request: web.Request, made: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        created = made | {"status": "in_progress", "output": [], "usage": None}
        await response.write(event("response.created", response=created))
        for word in ("so ", "it ", "is"):
            await asyncio.sleep(0.02)
            await response.write(event("response.output_text.delta", delta=word))
        done = made | {"status": "completed", "output": [self._output()], "usage": self._usage()}
        await response.write(event("response.completed", response=done))
        await response.write_eof()
        return response

    def _known(self, request: web.Request) -> dict[str, Any] | None:
        self._note(request)
        return self.kept.get(request.match_info["id"])

    async def _fetch(self, request: web.Request) -> web.StreamResponse:
        made = self._known(request)
        if made is None:
            return web.json_response(UNKNOWN, status=404)
        if request.query.get("stream") == "true":
            return await self._stream(request, made)
        return web.json_response(made)

    async def _items(self, request: web.Request) -> web.Response:
        made = self._known(request)
        if made is None:
            return web.json_response(UNKNOWN, status=404)
        return web.json_response({"object": "list", "data": []})

    async def _cancel(self, request: web.Request) -> web.Response:
        made = self._known(request)
        if made is None:
            return web.json_response(UNKNOWN, status=404)
        made["status"] = "cancelled"
        return web.json_response(made)

    async def _delete(self, request: web.Request) -> web.Response:
        made = self._known(request)
        if made is None:
            return web.json_response(UNKNOWN, status=404)
        del self.kept[made["id"]]
        return web.json_response({"id": made["id"], "object": "response", "deleted": True})

    async def _converse(self, request: web.Request) -> web.Response:
        self._note(request)
        made = f"conv_{next(_numbers)}"
        self.conversations.add(made)
        return web.json_response({"id": made, "object": "conversation"})

    async def _conversation(self, request: web.Request) -> web.Response:
        self._note(request)
        name = request.match_info["id"]
        if name not in self.conversations:
            return web.json_response(UNKNOWN, status=404)
        return web.json_response({"id": name, "object": "conversation"})
