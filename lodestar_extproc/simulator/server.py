"""One vLLM-like HTTP server in real time: OpenAI's API in front of a simulated engine.

It knows no router. Its manners are vLLM's where they matter to one: headers leave before the first
token, idle connections close after 5 s, gauges move at the end of a step, a client that leaves
aborts its request. POST /fault makes it misbehave.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from importlib.metadata import version

import orjson
from aiohttp import web

from lodestar_extproc.simulator.accelerators import EngineSpec
from lodestar_extproc.simulator.answer import Answer, StreamedAnswer, reset
from lodestar_extproc.simulator.answer_format import AnswerFormat
from lodestar_extproc.simulator.api import InvalidCallError, busy, parse_call
from lodestar_extproc.simulator.defaults import DEFAULT_MODEL
from lodestar_extproc.simulator.engine import Engine, EngineFull
from lodestar_extproc.simulator.faults import FaultKind, InjectedFault, parse_fault
from lodestar_extproc.simulator.metrics_page import CONTENT_TYPE, MetricsPage
from lodestar_extproc.simulator.real_time import RealTimeEngine

SERVED_BY_HEADER = "x-served-by"
KEEP_ALIVE_S = 5.0
"""vLLM's (uvicorn's) idle timeout."""
MAX_BODY_BYTES = 64 * 1024 * 1024  # as the external processor takes


class SimulatedServer:
    """One instance: an engine, its clock, its API, its faults.

    Attributes:
        address: `ip:port`, once started.
    """

    def __init__(
        self,
        spec: EngineSpec,
        *,
        model: str = DEFAULT_MODEL,
        speed: float = 1.0,
        seed: int = 0,
        cache_answers: bool = True,
        grace_s: float = 0.0,
    ) -> None:
        self.spec = spec
        self.address = ""
        self._model = model
        self._cache_answers = cache_answers
        self._loop = asyncio.get_running_loop()
        self._engine = RealTimeEngine(Engine(spec, seed), self._loop, speed=speed)
        self._page = MetricsPage(spec, model)
        self._fault = InjectedFault()
        self._runner = web.AppRunner(
            self._application(),
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=KEEP_ALIVE_S,
            shutdown_timeout=max(grace_s, 0.01),  # 0 would wait for ever
        )

    async def start(
        self, host: str = "127.0.0.1", port: int = 0, *, tls: ssl.SSLContext | None = None
    ) -> None:
        """Listen, by TLS where it is given; port 0 takes a free one.

        Raises:
            OSError: the port is taken.
        """
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, backlog=1024, ssl_context=tls).start()
        bound = self._runner.addresses[0]
        self.address = f"{bound[0]}:{bound[1]}"

    async def stop(self) -> None:
        """Stop listening, let requests finish within the grace period, drop the rest."""
        await self._runner.cleanup()
        self._engine.close()

    def _application(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_answer_errors])
        app.on_response_prepare.append(self._sign)
        app.router.add_post("/v1/chat/completions", self._chat_completions)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/version", self._version)
        app.router.add_get("/fault", self._show_fault)
        app.router.add_post("/fault", self._set_fault)
        return app

    async def _sign(self, _: web.Request, response: web.StreamResponse) -> None:
        response.headers[SERVED_BY_HEADER] = self.address

    async def _chat_completions(self, request: web.Request) -> web.StreamResponse:
        return await self._complete(request, chat=True)

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await self._complete(request, chat=False)

    async def _complete(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        arrived_s = self._loop.time()
        raw = await request.read()
        fault = self._strike()
        if fault.kind is FaultKind.RESET:
            return reset(request)
        if fault.kind is FaultKind.UNAVAILABLE:
            raise busy()
        limit = self.spec.longest_request_tokens
        call = parse_call(raw, chat=chat, model=self._model, longest_tokens=limit)
        words = call.answer()
        shape = AnswerFormat(call, _answer_id(request, call.digest), self._model, int(time.time()))
        answer = (StreamedAnswer if call.streaming else Answer)(words, shape, request, fault)
        ids = call.block_ids(words if self._cache_answers else [])
        try:
            number = self._engine.submit(ids, call.prompt_tokens, call.max_tokens, answer)
        except EngineFull:
            raise busy() from None
        try:
            return await answer.respond()
        finally:
            self._engine.abort(number)
            self._count(answer, arrived_s, call.max_tokens)

    def _strike(self) -> InjectedFault:
        """The fault for one new request."""
        fault = self._fault
        if fault.requests is not None:
            left = fault.requests - 1
            self._fault = replace(fault, requests=left) if left else InjectedFault()
        return fault

    def _count(self, answer: Answer, arrived_s: float, max_tokens: int) -> None:
        if answer.first_token_s is not None:
            self._page.ttft_s.observe(answer.first_token_s - arrived_s)
        if not answer.complete or answer.first_token_s is None:
            self._page.aborted += 1
            return
        now_s = self._loop.time()
        self._page.succeeded += 1
        self._page.e2e_s.observe(now_s - arrived_s)
        self._page.tpot_s.observe((now_s - answer.first_token_s) / max(1, max_tokens - 1))

    async def _models(self, _: web.Request) -> web.Response:
        card = {
            "id": self._model,
            "object": "model",
            "created": 0,
            "owned_by": "lodestar-extproc",
            "root": self._model,
            "parent": None,
            "max_model_len": self.spec.longest_request_tokens,
        }
        return _json({"object": "list", "data": [card]})

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _metrics(self, _: web.Request) -> web.Response:
        page = self._page.render(self._engine.gauges())
        return web.Response(body=page.encode(), headers={"Content-Type": CONTENT_TYPE})

    async def _version(self, _: web.Request) -> web.Response:
        return _json({"version": f"{version('lodestar-extproc')}+simulated"})

    async def _show_fault(self, _: web.Request) -> web.Response:
        return _json(asdict(self._fault))

    async def _set_fault(self, request: web.Request) -> web.Response:
        self._fault = parse_fault(await request.read())
        slow = self._fault.kind is FaultKind.SLOW
        self._engine.slow_down(self._fault.factor if slow else 1.0)
        if self._fault.kind is FaultKind.FREEZE:
            self._engine.freeze()
        else:
            self._engine.thaw()
        return _json(asdict(self._fault))


@web.middleware
async def _answer_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except InvalidCallError as error:
        return web.Response(status=error.status, body=error.body(), content_type="application/json")


def _answer_id(request: web.Request, digest: int) -> str:
    """As vLLM: the client's own id where it sent one."""
    return request.headers.get("x-request-id") or f"{digest:016x}"


def _json(value: object) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")
