"""Captures what a real Envoy sends, into captured/*.json. Run again for a new Envoy:

python tests/support/capture.py [path to another envoy binary]
"""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import grpc

from envoy_process import ENVOY_BINARY, EnvoyProcess, cluster_of, envoy_config
from extproc_fakes import FakeRouters
from lodestar_extproc import names
from lodestar_extproc.extproc import wire
from lodestar_extproc.extproc.exchange import Exchange
from stub_engine import StubEngine

CAPTURED = Path(__file__).parents[1] / "wire" / "captured"
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
SETTLE_S = 0.5


class Recorder:
    """Answers as the server does and keeps every byte that came."""

    def __init__(self, routers: FakeRouters) -> None:
        self.streams: list[list[str]] = []
        self.entries: list[str] = []
        self._routers = routers

    async def process(self, messages, context) -> None:
        kept: list[str] = []
        self.streams.append(kept)
        exchange = None
        async for data in messages:
            kept.append(base64.b64encode(data).decode())
            message = wire.parse(data)
            exchange = exchange or Exchange(self._routers, wire.decode_opening(message))
            for reply in exchange.receive(wire.decode(message, time.monotonic())):
                await context.write(wire.encode(reply))
            if exchange.done:
                return

    async def log(self, messages, context) -> bytes:
        async for data in messages:
            self.entries.append(base64.b64encode(data).decode())
        return b""

    async def serve(self) -> tuple[grpc.aio.Server, int]:
        server = grpc.aio.server()
        for path, handler in (
            (names.PROCESS_METHOD, grpc.stream_stream_rpc_method_handler(self.process)),
            (names.ACCESS_LOG_METHOD, grpc.stream_unary_rpc_method_handler(self.log)),
        ):
            service, _, method = path[1:].partition("/")
            handlers = grpc.method_handlers_generic_handler(service, {method: handler})
            server.add_generic_rpc_handlers((handlers,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port


async def capture(file: str, binary: Path) -> dict[str, dict[str, list]]:
    """What *file* makes Envoy send, by scenario."""
    engines = (StubEngine("a"), StubEngine("b"))
    for engine in engines:
        await engine.start()
    routers = FakeRouters(addresses=tuple(e.address for e in engines), pools=("engines",))
    recorder = Recorder(routers)
    server, port = await recorder.serve()
    config = envoy_config(
        file, extproc_port=port, engines=[e.address for e in engines], edit=without_health_checks
    )
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        async with (
            EnvoyProcess(config, Path(folder), binary=binary) as envoy,
            aiohttp.ClientSession(envoy.url) as client,
        ):
            # An access log stream's first message describes the whole of Envoy: not kept.
            await models(client, engines)
            await asyncio.sleep(SETTLE_S)
            for name, scenario in SCENARIOS.items():
                recorder.streams, recorder.entries = [], []
                await scenario(client, engines)
                await asyncio.sleep(SETTLE_S)
                found[name] = {"streams": recorder.streams, "log": recorder.entries}
    await server.stop(0)
    for engine in engines:
        await engine.stop()
    return found


def without_health_checks(config: dict) -> None:
    """The recorder answers none, and the engines' would be noise."""
    for name in ("lodestar", "engines"):
        cluster_of(config, name).pop("health_checks", None)


async def streaming_chat(client, engines) -> None:
    await post(client, CHAT | {"stream": True})


async def whole_chat(client, engines) -> None:
    await post(client, CHAT)


async def models(client, engines) -> None:
    async with client.get("/v1/models") as response:
        await response.read()


async def retried_chat(client, engines) -> None:
    engines[0].status = 503
    await post(client, CHAT | {"stream": True})
    engines[0].status = 200


async def aborted_chat(client, engines) -> None:
    engines[0].prefill_s = 10.0
    try:
        await asyncio.wait_for(post(client, CHAT | {"stream": True}), 0.2)
    except TimeoutError:
        engines[0].prefill_s = 0.0


async def keep_alive_chat(client, engines) -> None:
    engines[0].keep_alive, engines[0].prefill_s = True, 0.2
    await post(client, CHAT | {"stream": True})
    engines[0].keep_alive, engines[0].prefill_s = False, 0.0


async def post(client, body) -> None:
    async with client.post("/v1/chat/completions", json=body) as response:
        await response.read()


SCENARIOS = {
    "streaming chat": streaming_chat,
    "whole chat": whole_chat,
    "models": models,
    "retried chat": retried_chat,
    "aborted chat": aborted_chat,
    "keep-alive chat": keep_alive_chat,
}


def main() -> None:
    binary = Path(sys.argv[1]) if len(sys.argv) > 1 else ENVOY_BINARY
    version = (
        subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
        .stdout.partition("version:")[2]
        .split("/")[1]
    )
    files = ("envoy_1_36.yaml",) if version < "1.37" else ("envoy.yaml", "streamed.yaml")
    for file in files:
        path = file if file == "envoy.yaml" else f"variants/{file}"
        found = asyncio.run(capture(path, binary))
        target = CAPTURED / f"{file.removesuffix('.yaml')}_{version}.json"
        target.write_text(json.dumps(found, indent=1) + "\n")
        print(target.name, {name: len(s["streams"]) for name, s in found.items()})


if __name__ == "__main__":
    main()
