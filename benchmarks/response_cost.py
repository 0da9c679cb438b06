"""What one long answer costs, in each way of running Lodestar behind a real Envoy.

An engine answers with server-sent events, one every few milliseconds, each a part of its own. The
answers come one after another, the ways of running take turns in every round. CPU is the time that
the threads of the service, and of its Envoy, have run by the kernel's own account, less what the
same process uses while idle. Endpoints are neither scraped nor probed.

In full duplex Lodestar gives every part back. That its stream could end sooner is measured too, by
a service that does so (`early_ending.py`): Envoy then loses the parts that are on their way.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from aiohttp import web
from rich.console import Console
from rich.table import Table
from shipped_envoy import shipped

from lodestar_extproc.demo.bootstrap import Ports
from lodestar_extproc.demo.processes import Processes, beside_python, free_ports

UNWATCHING = {"scrape_interval_s": 600.0, "scrape_stale_s": 600.0, "health_interval_s": 600.0}
BODY = {
    "model": "m",
    "stream": True,
    "messages": [{"role": "user", "content": "What does it cost to watch you? " * 60}],
}
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}\n\n'
END = b"data: [DONE]\n\n"
IDLE_S = 3.0
FULL_DUPLEX = "variants/full_duplex.yaml"


@dataclass(frozen=True, slots=True)
class Way:
    """One way of running.

    Attributes:
        early: when its streams end though the answer goes on; empty for Lodestar itself.
    """

    name: str
    file: str
    early: str = ""


WAYS = (
    Way("full duplex: given back to the end", FULL_DUPLEX),
    Way("full duplex, stream ended after the first token", FULL_DUPLEX, "first-token"),
    Way("full duplex, stream ended after the request", FULL_DUPLEX, "request"),
    Way("observed to the end", "variants/observer_only.yaml"),
    Way("observed to the first token", "envoy.yaml"),
    Way("stream ended after the request, access log", "variants/access_log_only.yaml"),
)


@dataclass(slots=True)
class Running:
    """One way's Envoy and service, and what they have used for each answer, seconds."""

    url: str
    pids: tuple[int, int]
    idle: tuple[float, float] = (0.0, 0.0)
    service_s: list[float] = field(default_factory=list)
    envoy_s: list[float] = field(default_factory=list)
    cut: int = 0


def ran_s(pid: int) -> float:
    """Time that all threads of a process have run so far, to the nanosecond."""
    total_ns = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # it has just ended
            total_ns += int((thread / "schedstat").read_text().split()[0])
    return total_ns / 1e9


async def start_engine(n_events: int, between_s: float) -> tuple[web.AppRunner, str]:
    """An engine that answers everything with *n_events* events; its address."""

    async def answer(request: web.Request) -> web.StreamResponse:
        await request.read()
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        with suppress(ConnectionResetError):  # of answers that get cut
            for _ in range(n_events):
                await response.write(EVENT)
                await asyncio.sleep(between_s)
            await response.write(END)
        return response

    async def health(_request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get("/health", health)
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"127.0.0.1:{runner.addresses[0][1]}"


async def start(
    way: Way, processes: Processes, session: aiohttp.ClientSession, folder: Path, engine: str
) -> Running:
    """Envoy and the service of *way*."""
    at, name = Ports(*free_ports(4)), way.name.replace(" ", "_")
    config = folder / f"{name}.json"
    config.write_text(json.dumps(shipped(way.file)(at, [(engine, "")], UNWATCHING)))
    admin = f"127.0.0.1:{at.lodestar_admin}"
    program = ["-m", "lodestar_extproc"]
    if way.early:
        program = [str(Path(__file__).with_name("early_ending.py")), way.early]
    service = [sys.executable, *program, "serve", "--envoy-config", str(config)]
    pid = processes.start(name, [*service, "--admin", admin, "--drain", "0"])
    await processes.ready(session, f"http://{admin}/ready")
    envoy = [beside_python("envoy"), "--config-path", str(config), "--concurrency", "1"]
    envoy_pid = processes.start(
        f"envoy_{name}", [*envoy, "--log-level", "warning", "--use-dynamic-base-id"]
    )
    await processes.ready(session, f"http://127.0.0.1:{at.envoy_admin}/ready")
    return Running(f"http://127.0.0.1:{at.listener}/v1/chat/completions", (pid, envoy_pid))


async def ask(running: Running, session: aiohttp.ClientSession, expected: bytes) -> None:
    """One answer, and what it cost."""
    before, began_s = [ran_s(pid) for pid in running.pids], time.monotonic()
    try:
        async with session.post(running.url, json=BODY) as response:
            whole = await response.read() == expected
    except aiohttp.ClientError:
        whole = False
    await asyncio.sleep(0.3)  # the access log, and the ends of streams, follow
    took_s = time.monotonic() - began_s
    used = [ran_s(pid) - b for pid, b in zip(running.pids, before, strict=True)]
    running.cut += not whole
    running.service_s.append(used[0] - running.idle[0] * took_s)
    running.envoy_s.append(used[1] - running.idle[1] * took_s)


async def measure_idle(runnings: list[Running]) -> None:
    """How much of a core each process uses when nothing happens."""
    before = [[ran_s(pid) for pid in each.pids] for each in runnings]
    await asyncio.sleep(IDLE_S)
    for each, (service_s, envoy_s) in zip(runnings, before, strict=True):
        service_pid, envoy_pid = each.pids
        each.idle = (
            (ran_s(service_pid) - service_s) / IDLE_S,
            (ran_s(envoy_pid) - envoy_s) / IDLE_S,
        )


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """CPU of each way for one answer, ms."""
    expected = EVENT * options.events + END
    engine, address = await start_engine(options.events, options.between_ms / 1e3)
    try:
        with Processes(folder) as processes:
            async with aiohttp.ClientSession() as session:
                ways = {w: await start(w, processes, session, folder, address) for w in WAYS}
                for running in ways.values():
                    await ask(running, session, expected)
                await measure_idle(list(ways.values()))
                for running in ways.values():
                    running.service_s.clear()
                    running.envoy_s.clear()
                for _ in range(options.rounds):
                    for running in ways.values():
                        for _ in range(options.answers):
                            await ask(running, session, expected)
                    processes.check()
    finally:
        await engine.cleanup()
    return {way.name: _result(running) for way, running in ways.items()}


def _result(running: Running) -> dict[str, Any]:
    def spread(values_s: list[float]) -> list[float]:
        return [float(1e3 * v) for v in np.quantile(values_s, (0.5, 0.1, 0.9))]

    return {
        "answers": len(running.service_s),
        "cut": running.cut,
        "service_ms": spread(running.service_s),
        "envoy_ms": spread(running.envoy_s),
    }


def show(result: dict[str, Any]) -> None:
    table = Table("way", box=None)
    for name in ("service, CPU ms an answer", "Envoy, CPU ms", "answers", "cut short"):
        table.add_column(name, justify="right")
    for way, of in result.items():
        columns = (
            "{:.1f} ({:.1f} to {:.1f})".format(*of[who]) for who in ("service_ms", "envoy_ms")
        )
        table.add_row(way, *columns, str(of["answers"]), str(of["cut"]))
    console = Console(width=140)
    console.print(table)
    console.print("median (10 % to 90 % of the answers)")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=500, help="of an answer")
    parser.add_argument("--between-ms", type=float, default=2.0, help="between two events")
    parser.add_argument("--answers", type=int, default=15, help="of a round, each way")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the result here too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lodestar-response-") as folder:
        result = asyncio.run(measure(options, Path(folder)))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    show(result)


if __name__ == "__main__":
    main()
