"""What may befall what goes between Envoy and the service: the access log, and encryption."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import aiohttp
import grpc
import grpc.aio

from certificates import Authority
from fault import NOTICED_S, Befall, Fault, beside
from fault_plan import Form, write_pair
from fault_stack import FaultStack
from lodestar_extproc.generated.lodestar.v1.envoy_pb2 import (
    HTTPAccessLogEntry,
    StreamAccessLogsMessage,
)
from lodestar_extproc.names import ACCESS_LOG_METHOD
from process_stack import get
from waiting import until

CLOSES_S = 60.0
"""Without their ends, requests are given up once engines have shown for 10 s that they are over."""
WITH_THE_LAST_GOOD_S = 20.0
"""How soon Envoy has connected anew, with what the service showed before."""
ABSURD = ("-1", "1e308", "nan", "99999999999999999999", "\xff\xfe", "")


@asynccontextmanager
async def log_cut(stack: FaultStack) -> AsyncIterator[None]:
    """Its connection ends, and no other is taken."""
    assert stack.way is not None
    stack.way.cut()
    yield
    await stack.way.mend()


def entry(decision: str, address: str, value: str) -> bytes:
    """What Envoy might say of the end of a request, with *value* for all times and counts."""
    told = HTTPAccessLogEntry()
    tags = {"decision": decision, "inst": address, "flags": "-", "picked": address}
    tags |= dict.fromkeys(("ttft_us", "hdr_us", "e2e_us", "route_us", "attempts"), value)
    for name, text in tags.items():
        told.common_properties.custom_tags.add(key=name.encode(), value=text.encode("latin-1"))
    told.response.response_code.value = 200
    return bytes(told.SerializeToString())


async def last_decisions(stack: FaultStack) -> list[tuple[str, str]]:
    """Ids and endpoints of those that are over and of those under way; none while it is down."""
    try:
        page = await get(f"{stack.service.url}/decisions?limit=100")
    except aiohttp.ClientError:
        return []
    found = json.loads(page)["decisions"]
    return [(each["decision_id"], each["chosen"]) for each in found]


async def send(stack: FaultStack, messages: Iterator[bytes]) -> None:
    """As a stream of access logs, whose end the service may choose."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{stack.service.grpc_port}") as channel:
        call = channel.stream_unary(ACCESS_LOG_METHOD)(messages)
        with suppress(grpc.aio.AioRpcError):
            await call


@asynccontextmanager
async def log_replayed(stack: FaultStack) -> AsyncIterator[None]:
    """Ends that were told are told again and again, and those of requests that still run."""

    async def replay() -> None:
        while True:
            message = StreamAccessLogsMessage()
            for decision, address in await last_decisions(stack):
                message.http_logs.log_entry.append(entry(decision, address, "1000"))
            await send(stack, iter([message.SerializeToString()] * 20))
            await asyncio.sleep(0.05)

    async with beside(replay()):
        yield


@asynccontextmanager
async def log_poisoned(stack: FaultStack) -> AsyncIterator[None]:
    """Absurd values, bytes that are no text, and bytes that are no message."""
    draw = random.Random(0)

    async def poison() -> None:
        while True:
            message = StreamAccessLogsMessage()
            for decision, address in (await last_decisions(stack))[:20]:
                told = entry(f"{decision}x", address, draw.choice(ABSURD))
                message.http_logs.log_entry.append(told)
                message.http_logs.log_entry.append(draw.randbytes(50))
            good = message.SerializeToString()
            await send(stack, iter([good, good[: len(good) // 2], draw.randbytes(500)]))
            await asyncio.sleep(0.05)

    async with beside(poison()):
        yield


def pair_swapped(kind: str) -> Befall:
    """The files that the service shows are swapped, and Envoy has to connect anew."""

    @asynccontextmanager
    async def befall(stack: FaultStack) -> AsyncIterator[None]:
        assert stack.tls_folder is not None
        assert stack.way is not None
        folder, kept = stack.tls_folder, stack.folder / "kept"
        shutil.copytree(folder, kept, dirs_exist_ok=True)
        if kind == "garbage":
            (folder / "tls.crt").write_bytes(b"-----BEGIN CERTIFICATE-----\n\xff")
        elif kind == "gone":
            (folder / "tls.crt").unlink()
            (folder / "tls.key").unlink()
        else:
            (foreign := stack.folder / "foreign").mkdir(exist_ok=True)
            write_pair(Authority(foreign, "foreign"), folder)
        stack.way.drop()
        if kind != "foreign":  # which Envoy does not trust
            await until(stack.is_whole, WITH_THE_LAST_GOOD_S)
        yield
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        stack.way.drop()

    return befall


def in_log(name: str, befall: Befall, **limits: float) -> Fault:
    return Fault(name, befall, "log", **limits)


FAULTS = (
    Fault("access log is cut", log_cut, "log", Form.LOG, lasts_s=NOTICED_S, closes_s=CLOSES_S),
    in_log("access log is replayed", log_replayed),
    in_log("access log is poisoned", log_poisoned),
    Fault("certificate and key are garbage", pair_swapped("garbage"), "tls", Form.TLS),
    Fault("certificate and key are gone", pair_swapped("gone"), "tls", Form.TLS),
    Fault("certificate and key are another authority's", pair_swapped("foreign"), "tls", Form.TLS),
)
