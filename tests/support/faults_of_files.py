"""What may befall the files that are watched: the configuration, and the endpoints' file."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address

import aiohttp

from envoy_process import cluster_of
from fault import NOTICED_S, Befall, Fault, beside
from fault_plan import Form, assign, replace
from fault_stack import FaultStack
from ports import a_port
from process_stack import ECHO_ENGINE, HttpProcess
from waiting import until

N_JOINING = 300
FIRST_JOINING = "127.0.1.1"
"""Loopback all the same: every address of 127/8 is this machine's."""
ANSWERED_S = 2.0
"""An answer of an engine takes half a second."""
NOBODY = [f"127.0.{3 + i // 200}.{1 + i % 200}" for i in range(N_JOINING)]
"""Addresses at which nobody listens."""


def configured(content: str | None) -> Befall:
    """The watched file is another; None for a FIFO. Envoy has read its own before."""

    @asynccontextmanager
    async def befall(stack: FaultStack) -> AsyncIterator[None]:
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
async def reconfigured(stack: FaultStack) -> AsyncIterator[None]:
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


def assigned(stack: FaultStack, *more: str) -> None:
    """The engines, and *more* beside them, are the endpoints from now on."""
    assert stack.endpoints_file is not None
    assign(stack.endpoints_file, [*(engine.address for engine in stack.engines), *more])


def endpoints_file(content: str | None) -> Befall:
    """The endpoints' file holds *content*; None where it is gone."""

    @asynccontextmanager
    async def befall(stack: FaultStack) -> AsyncIterator[None]:
        assert stack.endpoints_file is not None
        if content is None:
            stack.endpoints_file.unlink()
        else:
            replace(stack.endpoints_file, content)
        yield
        assigned(stack)

    return befall


@asynccontextmanager
async def no_endpoints(stack: FaultStack) -> AsyncIterator[None]:
    """The file says that there are none. Envoy keeps those that pass its own health checks."""
    assert stack.endpoints_file is not None
    assign(stack.endpoints_file, [])
    yield
    assigned(stack)


@asynccontextmanager
async def endpoints_churn(stack: FaultStack) -> AsyncIterator[None]:
    """One engine after another leaves and comes back, ten times a second."""
    assert stack.endpoints_file is not None
    addresses = [engine.address for engine in stack.engines]
    file = stack.endpoints_file

    async def churn() -> None:
        for i in itertools.cycle(range(len(addresses))):
            assign(file, [a for a in addresses if a != addresses[i]])
            await asyncio.sleep(0.05)
            assign(file, addresses)
            await asyncio.sleep(0.05)

    async with beside(churn()):
        yield
    assigned(stack)


@asynccontextmanager
async def strangers_join(stack: FaultStack) -> AsyncIterator[None]:
    """Three hundred addresses at which nobody listens join at once, and leave at once."""
    port = a_port()
    assigned(stack, *(f"{host}:{port}" for host in NOBODY))
    yield
    assigned(stack)


@asynccontextmanager
async def strangers_come_and_go(stack: FaultStack) -> AsyncIterator[None]:
    """The same, again and again."""
    port = a_port()

    async def churn() -> None:
        while True:
            assigned(stack, *(f"{host}:{port}" for host in NOBODY))
            await asyncio.sleep(1.0)
            assigned(stack)
            await asyncio.sleep(0.5)

    async with beside(churn()):
        yield
    assigned(stack)


@asynccontextmanager
async def engines_join(stack: FaultStack) -> AsyncIterator[None]:
    """Three hundred engines that serve join at once, and leave while they answer."""
    port, first = a_port(), ip_address(FIRST_JOINING)
    command = [sys.executable, str(ECHO_ENGINE), str(port), FIRST_JOINING, str(N_JOINING)]
    url = f"http://{FIRST_JOINING}:{port}"
    with HttpProcess("joining", command, stack.folder, f"{url}/health") as engines:
        await engines.ready()
        assigned(stack, *(f"{first + i}:{port}" for i in range(N_JOINING)))
        yield
        assigned(stack)
        # Envoy lets nobody go who passes its health checks.
        session = aiohttp.ClientSession()
        async with session, session.post(f"{url}/fault", data="leaves"):
            await until(lambda: only_the_engines_are_left(stack))
            await asyncio.sleep(ANSWERED_S)


async def only_the_engines_are_left(stack: FaultStack) -> bool:
    """As Envoy sees it."""
    return await stack.envoy_counts("membership_total") == len(stack.engines)


def in_file(name: str, befall: Befall, **limits: float) -> Fault:
    return Fault(name, befall, "endpoints", Form.FILE, **limits)


FAULTS = (
    Fault("configuration is no YAML", configured("a: [b"), "file"),
    Fault("configuration has a mapping for a key", configured("? {a: 1}\n: x\n"), "file"),
    Fault("configuration is empty", configured("{}\n"), "file"),
    Fault("configuration is gone", configured(""), "file"),
    Fault("configuration is a FIFO", configured(None), "file"),
    Fault("configuration changes twenty times a second", reconfigured, "file"),
    in_file("endpoints' file is gone", endpoints_file(None)),
    in_file("endpoints' file is empty", endpoints_file("")),
    in_file("endpoints' file is garbage", endpoints_file("{resources: [1, {a")),
    in_file("endpoints' file names no endpoint", no_endpoints),
    in_file("endpoints leave and return ten times a second", endpoints_churn),
    in_file("300 endpoints that nobody serves join at once", strangers_join, lasts_s=NOTICED_S),
    in_file("the same come and go", strangers_come_and_go, lasts_s=2 * NOTICED_S),
    in_file("300 engines join at once, and leave", engines_join, lasts_s=NOTICED_S),
)
