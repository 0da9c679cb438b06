"""What may befall the process of the service, and the machine under it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from fault import NOTICED_S, SHORT_S, Befall, Fault, beside
from fault_plan import Form
from fault_stack import FaultStack
from process_children import children_of
from process_stack import REQUEST_TIMEOUT
from waiting import until

LONG_BODY_BYTES = 256 * 1024
"""Read by the process beside the service: twice what is read on the event loop."""
HOUR_S, DAY_S = 3600, 86_400
AGAIN_S = 0.4
"""Between two strikes of the same kind."""


@asynccontextmanager
async def killed(stack: FaultStack) -> AsyncIterator[None]:
    stack.service.kill()
    yield
    stack.service.start()
    await stack.service.ready()


@asynccontextmanager
async def restarted(stack: FaultStack) -> AsyncIterator[None]:
    assert await stack.service.terminate() == 0
    yield
    stack.service.start()
    await stack.service.ready()


@asynccontextmanager
async def frozen(stack: FaultStack) -> AsyncIterator[None]:
    stack.service.freeze()
    yield
    stack.service.thaw()


def stuttering(on_s: float, off_s: float) -> Befall:
    """Frozen and thawed by turns: a machine that is shared, or an event loop that is blocked."""

    @asynccontextmanager
    async def befall(stack: FaultStack) -> AsyncIterator[None]:
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


def limited(kind: int, soft: int) -> Befall:
    """Without more descriptors, or without room in any file."""

    @asynccontextmanager
    async def befall(stack: FaultStack) -> AsyncIterator[None]:
        before = resource.prlimit(stack.service.pid, kind)
        resource.prlimit(stack.service.pid, kind, (soft, before[1]))
        yield
        resource.prlimit(stack.service.pid, kind, before)

    return befall


@asynccontextmanager
async def told_to_reload(stack: FaultStack) -> AsyncIterator[None]:
    async def tell() -> None:
        while True:
            os.kill(stack.service.pid, signal.SIGHUP)
            await asyncio.sleep(0.02)

    async with beside(tell()):
        yield


@asynccontextmanager
async def states_gone(stack: FaultStack) -> AsyncIterator[None]:
    """Checkpoint and journal are removed, and folders stand in their places."""
    places = [stack.envoy.config_file.with_name(name) for name in ("learned", "journal")]
    for place in places:
        place.unlink(missing_ok=True)
        place.mkdir()
    yield
    for place in places:
        place.rmdir()


@asynccontextmanager
async def admin_hammered(stack: FaultStack) -> AsyncIterator[None]:
    async def ask(path: str) -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                async with session.get(stack.service.url + path) as response:
                    await response.read()

    async with beside(*(ask(path) for path in 2 * ("/metrics", "/decisions?limit=1000"))):
        yield


@asynccontextmanager
async def babbled_at(stack: FaultStack) -> AsyncIterator[None]:
    """Connections to the gRPC port that speak no HTTP/2, or nothing at all."""
    held = [socket.create_connection(("127.0.0.1", stack.service.grpc_port)) for _ in range(200)]
    for i, connection in enumerate(held):
        if i % 2:
            with contextlib.suppress(OSError):
                connection.sendall(os.urandom(1000))
    yield
    for connection in held:
        connection.close()


@asynccontextmanager
async def long_bodies(stack: FaultStack) -> AsyncIterator[None]:
    """Two at a time, each of which has to be answered."""

    async def ask(number: int) -> None:
        said = f"{number}: " + "The tide table. " * (LONG_BODY_BYTES // 16)
        content = {"model": "m", "messages": [{"role": "user", "content": said}], "stream": False}
        body, n = json.dumps(content).encode(), 0
        async with aiohttp.ClientSession(timeout=REQUEST_TIMEOUT) as session:
            while True:
                url = f"{stack.envoy.url}/v1/chat/completions"
                async with session.post(url, data=io.BytesIO(body)) as response:
                    await response.read()
                    assert response.status == 200, f"long body {n} was answered {response.status}"
                n += 1

    async with beside(ask(1), ask(2)):
        await until(lambda: readers(stack))
        yield


def readers(stack: FaultStack) -> list[int]:
    return children_of(stack.service.pid, "reader_main")


def reader_struck(number: signal.Signals) -> Befall:
    """The process that reads long bodies gets a signal again and again, while such bodies come."""

    @asynccontextmanager
    async def befall(stack: FaultStack) -> AsyncIterator[None]:
        async def strike() -> None:
            while True:
                for reader in readers(stack):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(reader, number)
                await asyncio.sleep(AGAIN_S)

        async with long_bodies(stack), beside(strike()):
            yield
        for reader in readers(stack):
            os.kill(reader, signal.SIGCONT)

    return befall


def clock_stepped(by_s: int) -> Befall:
    """The time of day jumps, and back at the end."""

    @asynccontextmanager
    async def befall(stack: FaultStack) -> AsyncIterator[None]:
        assert stack.clock is not None, "no C compiler"
        stack.clock.step(by_s)
        yield
        stack.clock.step(0)

    return befall


def of_form(form: Form) -> list[Fault]:
    """A sample, for a service that runs in another form."""
    return [
        Fault(f"killed ({form.name.lower()})", killed, form=form, lasts_s=NOTICED_S),
        Fault(f"frozen ({form.name.lower()})", frozen, form=form, lasts_s=NOTICED_S),
        Fault(f"restarted ({form.name.lower()})", restarted, form=form, lasts_s=SHORT_S),
        Fault(f"garbage on the gRPC port ({form.name.lower()})", babbled_at, form=form),
        Fault(
            f"no descriptors left ({form.name.lower()})",
            limited(resource.RLIMIT_NOFILE, 8),
            form=form,
        ),
    ]


FAULTS = (
    Fault("killed", killed, lasts_s=NOTICED_S),
    Fault("restarted", restarted),
    Fault("frozen", frozen, lasts_s=NOTICED_S),
    Fault("slowed to a half", stuttering(0.02, 0.02), lasts_s=NOTICED_S),
    Fault("event loop blocked for 0.4 s, again and again", stuttering(0.4, 0.4)),
    Fault("no descriptors left", limited(resource.RLIMIT_NOFILE, 8)),
    Fault("disk full", limited(resource.RLIMIT_FSIZE, 0)),
    Fault("the clock steps an hour ahead, and back", clock_stepped(HOUR_S)),
    Fault("the clock steps a day back, and ahead", clock_stepped(-DAY_S)),
    Fault("told to reload fifty times a second", told_to_reload),
    Fault("checkpoint and journal are gone, folders in their places", states_gone, "disk"),
    Fault("operators ask without a pause", admin_hammered),
    Fault("garbage on the gRPC port", babbled_at),
    Fault(
        "the reader of long bodies is killed again and again",
        reader_struck(signal.SIGKILL),
        may_fail_inside=20,
    ),
    Fault(
        "the reader of long bodies is stopped",
        reader_struck(signal.SIGSTOP),
        lasts_s=NOTICED_S,
        may_fail_inside=20,
    ),
    *of_form(Form.GRPCIO),
)
