"""Client, Envoy, `serve` and two real vLLM servers: what the tests drive and look at."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from engines import MODEL, Engine, cpu_engine, ready, start
from gateway import Gateway, running_gateway

from kv_events import CacheFollower
from lodestar_extproc.demo.processes import free_ports
from waiting import until

CHAT = "/v1/chat/completions"
FROZEN_AFTER_S = 3.0
SETTINGS = {
    # Fixed and quick to explain; every answer is watched to its end, for its usage.
    "policy": "prefix_affinity_token_load",
    "observed_ratio": 1.0,
    "frozen_after_s": FROZEN_AFTER_S,
    "health_interval_s": 0.5,
    # One core an engine, shared with everything else: slow is not dead.
    "health_timeout_s": 10.0,
    "scrape_timeout_s": 10.0,
    "bytes_per_token": 2.0,
}
ENGINE_OPTIONS = (
    *("--sse-keep-alive-interval", "1"),
    *("--prefix-caching-hash-algo", "sha256_cbor"),
    *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
)
KV_EVENTS = {
    "enable_kv_cache_events": True,
    "publisher": "zmq",
    "endpoint": "tcp://*:0",
    "topic": "kv",
}


@dataclass
class Answer:
    """What a client got.

    Attributes:
        chunks: bytes as they came, with the seconds after sending.
    """

    status: int
    headers: dict[str, str]
    chunks: list[tuple[float, bytes]] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        return b"".join(chunk for _, chunk in self.chunks)

    @property
    def served_by(self) -> str:
        return self.headers.get("x-served-by", "")

    @property
    def events(self) -> list[dict[str, Any]]:
        """The JSON events of a stream, `[DONE]` left out."""
        lines = [line for line in self.body.split(b"\n") if line.startswith(b"data: {")]
        return [json.loads(line[6:]) for line in lines]

    @property
    def text(self) -> str:
        if not self.body.startswith((b"data:", b":")):
            return str(json.loads(self.body)["choices"][0]["message"]["content"])
        deltas = [choice["delta"] for event in self.events for choice in event.get("choices", ())]
        return "".join(delta.get("content") or "" for delta in deltas)

    @property
    def usage(self) -> dict[str, Any]:
        if not self.body.startswith((b"data:", b":")):
            return dict(json.loads(self.body)["usage"])
        return dict(next(event["usage"] for event in self.events if event.get("usage")))

    @property
    def cached_tokens(self) -> int:
        return int((self.usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)


@dataclass
class RealStack:
    """Everything is real; only the model is small."""

    gateway: Gateway
    engines: list[Engine]
    caches: list[CacheFollower]
    client: aiohttp.ClientSession
    folder: Path

    async def ask(
        self, text: str, *, url: str | None = None, max_tokens: int = 8, **fields: Any
    ) -> Answer:
        """One chat through Envoy, or to an engine itself; streamed unless *fields* say else."""
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        } | fields
        if not body["stream"]:
            del body["stream_options"]
        sent_s = asyncio.get_running_loop().time()
        async with self.client.post((url or self.gateway.url) + CHAT, json=body) as response:
            answer = Answer(response.status, dict(response.headers))
            async for chunk in response.content.iter_any():
                answer.chunks.append((asyncio.get_running_loop().time() - sent_s, chunk))
            return answer

    def engine_of(self, answer: Answer) -> Engine:
        return next(e for e in self.engines if e.plan.address == answer.served_by)

    def other(self, engine: Engine) -> Engine:
        return next(e for e in self.engines if e is not engine)

    async def last_decision(self) -> dict[str, Any]:
        """Lodestar's newest decision, once it knows how it ended."""

        async def ended() -> dict[str, Any] | None:
            (newest,) = (await self.gateway.admin("/decisions?limit=1"))["decisions"]
            return newest if newest["outcome"] else None

        return await until(ended)

    async def pool(self) -> dict[str, Any]:
        (pool,) = (await self.gateway.admin("/endpoints"))["pools"]
        return dict(pool)

    async def state_of(self, engine: Engine) -> str:
        endpoints = (await self.pool())["endpoints"]
        return next(str(e["state"]) for e in endpoints if e["address"] == engine.plan.address)

    async def restart(self, engine: Engine) -> Engine:
        """The same server anew, on its old port."""
        engine.kill()
        fresh = start(engine.plan, self.folder)
        self.engines[self.engines.index(engine)] = fresh
        await ready([fresh])
        return fresh


def prompt(words: int, seed: str) -> str:
    """Text of its own for every *seed*."""
    return " ".join(f"{seed}{i}" for i in range(words))


@asynccontextmanager
async def running_stack(environment: Path, folder: Path) -> AsyncIterator[RealStack]:
    """The servers, then the gateway; all end with the body."""
    ports = free_ports(2)
    plans = [
        cpu_engine(
            environment,
            "tiny",
            port,
            core,
            *ENGINE_OPTIONS,
            *("--kv-events-config", json.dumps(KV_EVENTS)),
            kv_cache_mib=16,
        )
        for core, port in enumerate(ports)
    ]
    engines = [start(plan, folder) for plan in plans]
    stack: RealStack | None = None
    try:
        await ready(engines)
        timeout = aiohttp.ClientTimeout(total=60.0)
        async with (
            running_gateway(plans, SETTINGS, folder) as gateway,
            aiohttp.ClientSession(timeout=timeout) as client,
        ):
            caches = [await CacheFollower.connect(client, plan.url) for plan in plans]
            stack = RealStack(gateway, engines, caches, client, folder)
            yield stack
    finally:
        for engine in engines:
            engine.kill()
        if stack is not None:
            for cache in stack.caches:
                cache.close()
