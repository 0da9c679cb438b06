"""What the service costs behind a real Envoy: `make bench-extproc-cost`.

Simulated engines, made fast, answer each request with 4 tokens as server-sent events. Envoys
stand before them: alone, with Lodestar, and with an ext_proc service that only answers the same
streams. They take turns in every round: compare what one run says. Watching engines costs time, not
requests, so there is a Lodestar too that scrapes and probes none: what it uses is the requests'.

CPU: user and system time of the service's process, from /proc, over requests at some concurrency.
Latency: time to the last byte at concurrency 1, one request to each Envoy in turn.
Other routers (`--routers FOLDER`, see `other_routers.py`) stand before the engines by themselves:
beside Envoy and Lodestar together, not beside Lodestar.
Idle: CPU and memory of Lodestar with 64 endpoints scraped every 200 ms and no requests.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import orjson
import other_routers
from rich.console import Console
from rich.table import Table

from lodestar_extproc.demo.bootstrap import Ports, bootstrap
from lodestar_extproc.demo.processes import Processes, beside_python, free_ports
from lodestar_extproc.evaluation.chats import text

ALONE, NOTHING = "Envoy alone", "do-nothing"
OURS, UNWATCHED, GRPCIO = "Lodestar", "Lodestar unwatched", "Lodestar unwatched, grpcio"
SERVICES = (OURS, UNWATCHED, GRPCIO, NOTHING)
UNWATCHING = {"scrape_interval_s": 600.0, "scrape_stale_s": 600.0, "health_interval_s": 600.0}
PROMPT_TOKENS, SHARED_TOKENS, OUTPUT_TOKENS = 500, 350, 4
ENGINES, IDLE_ENGINES = 4, 64
SPEED = 200.0
WARM_UP = 300
IDLE_WINDOW_S = 10.0
RATE = 150.0
MAX_CPU_RATIO, HOPED_CPU_RATIO, MAX_IDLE_RATIO, MAX_MEMORY_MIB = 1.6, 0.6, 0.10, 300.0


@dataclass(frozen=True, slots=True)
class Target:
    """One Envoy, and the process of its service; pid 0 without one."""

    name: str
    url: str
    pid: int


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> float:
    """Resident memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def bodies(seed: int) -> Iterator[bytes]:
    """Streamed chats of about 2 KB; two thirds share a system prompt with others."""
    rng = random.Random(seed)
    systems = [text(rng, SHARED_TOKENS) for _ in range(8)]
    while True:
        shared = rng.choice(systems) if rng.random() < 0.67 else ""
        own = text(rng, PROMPT_TOKENS - len(shared) // 4)
        said = ({"role": "system", "content": shared}, {"role": "user", "content": own})
        asked = {"model": "llama-3.1-8b", "messages": said, "stream": True}
        yield orjson.dumps(asked | {"max_tokens": OUTPUT_TOKENS})


async def ask(session: aiohttp.ClientSession, target: Target, body: bytes) -> float:
    """One request; its time in seconds."""
    started_s = time.perf_counter()
    async with session.post(target.url + "/v1/chat/completions", data=body) as response:
        answer = await response.read()
    elapsed_s = time.perf_counter() - started_s
    if response.status != 200 or not answer.rstrip().endswith(b"[DONE]"):
        raise RuntimeError(f"{target.name}: status {response.status}, {answer[-200:]!r}")
    return elapsed_s


async def ask_at_rate(
    session: aiohttp.ClientSession, target: Target, given: Iterable[bytes], rate_per_s: float
) -> list[float]:
    """Ask for each of *given*, so many a second, whatever becomes of them; their times."""
    began_s, asked = time.perf_counter(), list[asyncio.Task[float]]()
    async with asyncio.TaskGroup() as group:
        for i, body in enumerate(given):
            await asyncio.sleep(max(0.0, began_s + i / rate_per_s - time.perf_counter()))
            asked.append(group.create_task(ask(session, target, body)))
    return [each.result() for each in asked]


class Bench:
    """Sends load and reads clocks."""

    def __init__(self, session: aiohttp.ClientSession, seed: int) -> None:
        self._session = session
        self._bodies = bodies(seed)

    async def load(self, target: Target, n: int, concurrency: int) -> float:
        """Send *n* requests; CPU seconds that the target's service took for each."""
        left = iter(range(n))
        before_s = cpu_s(target.pid)

        async def worker() -> None:
            for _ in left:
                await ask(self._session, target, next(self._bodies))

        await asyncio.gather(*(worker() for _ in range(concurrency)))
        await asyncio.sleep(0.3)  # the access log follows
        return (cpu_s(target.pid) - before_s) / n

    async def open_load(self, target: Target, n: int, rate: float) -> float:
        """Send *n* requests, *rate* a second whatever becomes of them; CPU seconds for each."""
        before_s = cpu_s(target.pid)
        await ask_at_rate(self._session, target, itertools.islice(self._bodies, n), rate)
        await asyncio.sleep(0.3)  # the access log follows
        return (cpu_s(target.pid) - before_s) / n

    async def latency(self, targets: list[Target], n: int) -> dict[str, list[float]]:
        """*n* requests to each, in turn."""
        taken_s: dict[str, list[float]] = {target.name: [] for target in targets}
        for body in itertools.islice(self._bodies, n):
            for target in targets:
                taken_s[target.name].append(await ask(self._session, target, body))
        return taken_s


def consecutive_ports(n: int) -> int:
    """The first of *n* free ports, below those that clients are given."""
    for first in random.sample(range(20_000, 32_000, 100), 50):
        with ExitStack() as sockets, suppress(OSError):
            for port in range(first, first + n):
                sockets.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
    raise RuntimeError(f"no {n} free ports from 20000 to 32000")


@asynccontextmanager
async def opened_session() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0)
    headers = {"content-type": "application/json"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        yield session


class World:
    """Engines, services and Envoys, each a process.

    Attributes:
        addresses: of the engines.
        admin_url: of the Lodestar that was started last.

    Args:
        folder: for configurations and output.
    """

    def __init__(self, processes: Processes, session: aiohttp.ClientSession, folder: Path) -> None:
        self._processes = processes
        self._session = session
        self._folder = folder
        self.addresses: list[str] = []
        self.admin_url = ""

    async def start_engines(self, n: int, *options: str) -> None:
        port = consecutive_ports(n)
        command = [sys.executable, "-m", "lodestar_extproc", "simulate", "--speed", str(SPEED)]
        instances = ("--instances", f"h100:{n}", "--port", str(port))
        self._processes.start("engines", [*command, *instances, *options])
        self.addresses = [f"127.0.0.1:{port + i}" for i in range(n)]
        for address in self.addresses:
            await self._processes.ready(self._session, f"http://{address}/health")

    async def start(self, name: str) -> Target:
        """Envoy and what *name* puts behind it."""
        at = Ports(*free_ports(4))
        config = self._folder / f"{name}.json"
        config.write_text(json.dumps(self._envoy_config(name, at)))
        pid = 0
        if name in (OURS, UNWATCHED, GRPCIO):
            pid = await self._start_ours(name, config, at)
        elif name == NOTHING:
            script = str(Path(__file__).with_name("do_nothing_extproc.py"))
            command = [sys.executable, script, f"127.0.0.1:{at.ext_proc}", self.addresses[0]]
            pid = self._processes.start(name, command)
        command = [beside_python("envoy"), "--config-path", str(config), "--concurrency", "1"]
        quiet = ["--log-level", "warning", "--use-dynamic-base-id"]
        self._processes.start(f"envoy-{name}", [*command, *quiet])
        await self._processes.ready(self._session, f"http://127.0.0.1:{at.envoy_admin}/ready")
        return Target(name, f"http://127.0.0.1:{at.listener}", pid)

    async def start_others(self, folder: Path | None) -> dict[str, Target]:
        """The other routers that are installed in *folder*."""
        others = {}
        for name, command in other_routers.commands(folder, self.addresses, free_ports(4)).items():
            pid = self._processes.start(name, command)
            url = f"http://127.0.0.1:{command[command.index('--port') + 1]}"
            await self._processes.ready(self._session, f"{url}/health")
            others[name] = Target(name, url, pid)
        return others

    async def _start_ours(self, name: str, config: Path, at: Ports) -> int:
        admin = f"127.0.0.1:{at.lodestar_admin}"
        self.admin_url = f"http://{admin}"
        command = [sys.executable, "-m", "lodestar_extproc", "serve", "--envoy-config", str(config)]
        transport = ["--transport", "grpcio"] if name == GRPCIO else []
        pid = self._processes.start(name, [*command, "--admin", admin, "--drain", "0", *transport])
        await self._processes.ready(self._session, f"http://{admin}/ready")
        return pid

    def _envoy_config(self, name: str, at: Ports) -> dict[str, Any]:
        engines = [(address, "h100") for address in self.addresses]
        settings = {"policy": "learned"} | ({} if name == OURS else UNWATCHING)
        config = bootstrap(at, engines, settings)
        if name == ALONE:
            [listener] = config["staticResources"]["listeners"]
            manager = listener["filterChains"][0]["filters"][0]["typedConfig"]
            manager["httpFilters"] = manager["httpFilters"][-1:]
            del manager["accessLog"]
        return config


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """CPU of each service a request, and time of a request through each Envoy."""
    with Processes(folder) as processes:
        async with opened_session() as session:
            world = World(processes, session, folder)
            await world.start_engines(ENGINES)
            targets = {name: await world.start(name) for name in (ALONE, *SERVICES)}
            targets |= await world.start_others(options.routers)
            served = [name for name in targets if name != ALONE]
            bench = Bench(session, options.seed)
            for name in served:
                await bench.load(targets[name], WARM_UP, options.concurrency)
            cpu_us: dict[str, list[float]] = {name: [] for name in served}
            open_us: dict[str, list[float]] = {name: [] for name in served}
            latency_ms: dict[str, list[float]] = {name: [] for name in targets}
            n = options.requests
            for _ in range(options.rounds):
                for name in served:
                    used_s = await bench.load(targets[name], n, options.concurrency)
                    cpu_us[name].append(1e6 * used_s)
                for name in served:
                    used_s = await bench.open_load(targets[name], n // 2, options.rate)
                    open_us[name].append(1e6 * used_s)
                taken_s = await bench.latency([targets[n] for n in latency_ms], options.pings)
                for name, each in taken_s.items():
                    latency_ms[name].append(1e3 * float(np.median(each)))
                processes.check()
            used_mib = {name: memory_mib(targets[name].pid) for name in served}
            return _result(cpu_us, open_us, latency_ms) | {"memory_mib": used_mib}


def _result(
    cpu_us: dict[str, list[float]],
    open_us: dict[str, list[float]],
    latency_ms: dict[str, list[float]],
) -> dict[str, Any]:
    """Medians over the rounds of each round's own ratio and difference."""
    added = {
        name: [a - b for a, b in zip(latency_ms[name], latency_ms[ALONE], strict=True)]
        for name in cpu_us
    }
    return {
        "cpu_us_per_request": cpu_us,
        "open_cpu_us_per_request": open_us,
        "cpu_ratio": _ratios(cpu_us),
        "open_cpu_ratio": _ratios(open_us),
        "p50_ms": latency_ms,
        "added_p50_ms": {name: float(np.median(each)) for name, each in added.items()},
    }


def _ratios(used_us: dict[str, list[float]]) -> dict[str, float]:
    """Over do-nothing's of the same round."""
    return {
        name: float(np.median([a / b for a, b in zip(each, used_us[NOTHING], strict=True)]))
        for name, each in used_us.items()
    }


async def measure_idle(folder: Path) -> dict[str, float]:
    """CPU and memory with many endpoints and nothing to do."""
    with Processes(folder) as processes:
        async with opened_session() as session:
            world = World(processes, session, folder)
            await world.start_engines(IDLE_ENGINES)
            ours = await world.start(OURS)
            bench = Bench(session, 1)
            await bench.load(ours, 3 * IDLE_ENGINES, 4)
            before_s, started_s = cpu_s(ours.pid), time.monotonic()
            await asyncio.sleep(IDLE_WINDOW_S)
            used_ratio = (cpu_s(ours.pid) - before_s) / (time.monotonic() - started_s)
            return {"idle_core_ratio": used_ratio, "idle_memory_mib": memory_mib(ours.pid)}


def show(result: dict[str, Any], console: Console) -> bool:
    """Print it; whether every target is met."""
    table = Table("", box=None)
    for name in ("CPU µs a request", "over it", "open load", "over it", "p50 ms", "added ms"):
        table.add_column(name, justify="right")
    for name in result["p50_ms"]:
        added = result["added_p50_ms"].get(name)
        table.add_row(
            name,
            *_spent(result["cpu_us_per_request"], result["cpu_ratio"], name),
            *_spent(result["open_cpu_us_per_request"], result["open_cpu_ratio"], name),
            f"{np.median(result['p50_ms'][name]):.2f}",
            "-" if added is None else f"{added:.2f}",
        )
    console.print(table)
    most_added_ms = result["added_p50_ms"][NOTHING]
    verdicts = [
        ("CPU over do-nothing's", result["cpu_ratio"][UNWATCHED], MAX_CPU_RATIO),
        ("the same, as it is hoped", result["cpu_ratio"][UNWATCHED], HOPED_CPU_RATIO),
        ("added p50, ms", result["added_p50_ms"][OURS], most_added_ms),
        ("memory, MiB", result["memory_mib"][OURS], MAX_MEMORY_MIB),
        ("memory, MiB, grpcio", result["memory_mib"][GRPCIO], MAX_MEMORY_MIB),
        ("idle with 64 endpoints, cores", result.get("idle_core_ratio", 0.0), MAX_IDLE_RATIO),
    ]
    for name, value, target in verdicts:
        style = "red" if value > target else "green"
        console.print(f"{name}: {value:.2f}, target {target:.2g}", style=style)
    return all(value <= target for _, value, target in verdicts)


def _spent(used_us: dict[str, list[float]], ratios: dict[str, float], name: str) -> tuple[str, str]:
    used = used_us.get(name)
    if used is None:
        return "-", "-"
    spread = f"{np.median(used):.0f} ({min(used):.0f} to {max(used):.0f})"
    return spread, f"{ratios[name]:.2f}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=1500, help="of a round, each service")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--rate", type=float, default=RATE, help="of the open load, requests/s")
    parser.add_argument("--pings", type=int, default=200, help="of a round, each Envoy")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--routers", type=Path, help="environment of other routers")
    parser.add_argument("--no-idle", action="store_true", help="leave out the idle measurement")
    parser.add_argument("--json", type=Path, help="write the result here too")
    options = parser.parse_args()
    # So that nothing is left running however this ends.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="lodestar-cost-") as folder:
        result = asyncio.run(measure(options, Path(folder)))
        if not options.no_idle:
            result |= asyncio.run(measure_idle(Path(folder)))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if show(result, Console(width=120)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
