"""Faults: what may befall the service and the engines, each with how it is begun and ended."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import aiohttp

from envoy_process import cluster_of
from process_stack import Engine, ProcessStack

NOTICED_S = 3.0
"""How long most faults last: health checks have failed, and been noticed, by then."""
MESSAGE_TIMEOUT_MS = 500.0
"""Of envoy/envoy.yaml."""


@dataclass(frozen=True)
class Fault:
    """One fault, and what it may cost.

    Attributes:
        befall: does it while its context is open, and undoes it at the end.
        part: what it strikes; faults of different parts may come together.
        may_fail: requests that may fail beside those under way on engines that it strikes.
        strikes: how many engines lose what they were answering.
        added_p99_ms: how much longer than before the first bytes may take, at the 99th percentile.
        recovery_s: how soon decisions are made again after its end.
    """

    name: str
    befall: Callable[[ProcessStack], AbstractAsyncContextManager[None]]
    part: str = "service"
    may_fail: float = 0
    strikes: int = 0
    added_p99_ms: float = 2 * MESSAGE_TIMEOUT_MS
    recovery_s: float = 10.0


@asynccontextmanager
async def killed(stack: ProcessStack) -> AsyncIterator[None]:
    stack.service.kill()
    yield
    stack.service.start()
    await stack.service.ready()


@asynccontextmanager
async def restarted(stack: ProcessStack) -> AsyncIterator[None]:
    assert await stack.service.terminate() == 0
    yield
    stack.service.start()
    await stack.service.ready()


@asynccontextmanager
async def frozen(stack: ProcessStack) -> AsyncIterator[None]:
    stack.service.freeze()
    yield
    stack.service.thaw()


def stuttering(on_s: float, off_s: float) -> Callable[..., AbstractAsyncContextManager[None]]:
    """Frozen and thawed by turns: a machine that is shared, or an event loop that is blocked."""

    @asynccontextmanager
    async def befall(stack: ProcessStack) -> AsyncIterator[None]:
        async def stutter() -> None:
            while True:
                stack.service.freeze()
                await asyncio.sleep(off_s)
                stack.service.thaw()
                await asyncio.sleep(on_s)

        async with beside(stutter()):
            yield
        stack.service.thaw()

    return befall


def limited(kind: int, soft: int) -> Callable[..., AbstractAsyncContextManager[None]]:
    """Without more descriptors, or without room in any file."""

    @asynccontextmanager
    async def befall(stack: ProcessStack) -> AsyncIterator[None]:
        before = resource.prlimit(stack.service.pid, kind)
        resource.prlimit(stack.service.pid, kind, (soft, before[1]))
        yield
        resource.prlimit(stack.service.pid, kind, before)

    return befall


def configured(content: str | None) -> Callable[..., AbstractAsyncContextManager[None]]:
    """The watched file is another; None for a FIFO. Envoy has read its own before."""

    @asynccontextmanager
    async def befall(stack: ProcessStack) -> AsyncIterator[None]:
        file = stack.envoy.config_file
        good = file.read_bytes()
        file.unlink()
        if content is None:
            os.mkfifo(file)
        elif content:
            file.write_text(content)
        yield
        file.unlink(missing_ok=True)
        file.write_bytes(good)

    return befall


@asynccontextmanager
async def reconfigured(stack: ProcessStack) -> AsyncIterator[None]:
    """The watched file is written twenty times a second, by turns with two policies."""
    file = stack.envoy.config_file
    good = file.read_bytes()
    policies = ("least_request", "random")

    async def churn() -> None:
        for policy in itertools.cycle(policies):
            config = json.loads(good)
            block = cluster_of(config, "engines")["metadata"]["filter_metadata"]["lodestar"]
            block["policy"] = policy
            file.write_text(json.dumps(config))
            await asyncio.sleep(0.05)

    async with beside(churn()):
        yield
    file.write_bytes(good)


@asynccontextmanager
async def told_to_reload(stack: ProcessStack) -> AsyncIterator[None]:
    async def tell() -> None:
        while True:
            os.kill(stack.service.pid, signal.SIGHUP)
            await asyncio.sleep(0.02)

    async with beside(tell()):
        yield


@asynccontextmanager
async def states_gone(stack: ProcessStack) -> AsyncIterator[None]:
    """Checkpoint and journal are removed, and folders stand in their places."""
    places = [stack.envoy.config_file.with_name(name) for name in ("learned", "journal")]
    for place in places:
        place.unlink(missing_ok=True)
        place.mkdir()
    yield
    for place in places:
        place.rmdir()


@asynccontextmanager
async def admin_hammered(stack: ProcessStack) -> AsyncIterator[None]:
    async def ask(path: str) -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                async with session.get(stack.service.url + path) as response:
                    await response.read()

    async with beside(*(ask(path) for path in 2 * ("/metrics", "/decisions?limit=1000"))):
        yield


@asynccontextmanager
async def babbled_at(stack: ProcessStack) -> AsyncIterator[None]:
    """Connections to the gRPC port that speak no HTTP/2, or nothing at all."""
    held = [socket.create_connection(("127.0.0.1", stack.service.grpc_port)) for _ in range(200)]
    for i, connection in enumerate(held):
        if i % 2:
            with contextlib.suppress(OSError):
                connection.sendall(os.urandom(1000))
    yield
    for connection in held:
        connection.close()


def engine_fault(kind: str) -> Callable[..., AbstractAsyncContextManager[None]]:
    """As `echo_engine.py` knows them."""

    @asynccontextmanager
    async def befall(stack: ProcessStack) -> AsyncIterator[None]:
        await stack.engines[0].break_down(kind)
        yield
        await stack.engines[0].break_down("none")

    return befall


def engines_killed(n: int | None) -> Callable[..., AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def befall(stack: ProcessStack) -> AsyncIterator[None]:
        struck: list[Engine] = stack.engines[:n]
        for engine in struck:
            engine.kill()
        yield
        for engine in struck:
            engine.start()
        for engine in struck:
            await engine.ready()

    return befall


@asynccontextmanager
async def beside(*work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


ENDLESS = float("inf")
FAULTS = (
    Fault("killed", killed),
    Fault("restarted", restarted),
    Fault("frozen", frozen),
    Fault("slowed to a half", stuttering(0.02, 0.02)),
    Fault("event loop blocked for 0.4 s, again and again", stuttering(0.4, 0.4)),
    Fault("no descriptors left", limited(resource.RLIMIT_NOFILE, 8)),
    Fault("disk full", limited(resource.RLIMIT_FSIZE, 0)),
    Fault("told to reload fifty times a second", told_to_reload),
    Fault("checkpoint and journal are gone, folders in their places", states_gone, "disk"),
    Fault("operators ask without a pause", admin_hammered),
    Fault("garbage on the gRPC port", babbled_at),
    Fault("configuration is no YAML", configured("a: [b"), "file"),
    Fault("configuration has a mapping for a key", configured("? {a: 1}\n: x\n"), "file"),
    Fault("configuration is empty", configured("{}\n"), "file"),
    Fault("configuration is gone", configured(""), "file"),
    Fault("configuration is a FIFO", configured(None), "file"),
    Fault("configuration changes twenty times a second", reconfigured, "file"),
    Fault("an engine hangs", engine_fault("hang"), "engines", strikes=1, added_p99_ms=5000.0),
    Fault("an engine answers 503", engine_fault("busy"), "engines", strikes=1),
    Fault("an engine resets", engine_fault("reset"), "engines", may_fail=20, strikes=1),
    Fault("an engine is killed", engines_killed(1), "engines", strikes=1),
    Fault("two of three engines are killed", engines_killed(2), "engines", strikes=2),
    Fault("all engines are down", engines_killed(None), "engines", ENDLESS, 3, ENDLESS, 15.0),
)
