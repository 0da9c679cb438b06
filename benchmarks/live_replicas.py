"""What several replicas that share through a real Redis cost over one, behind a real Envoy.

    python benchmarks/live_replicas.py --json FILE       six cells, one, two and four replicas
    python benchmarks/live_replicas.py --restart         two, each restarted under load, or left

In real time on loopback: simulated engines that answer over HTTP as vLLM does, `redis-server`, the
replicas and Envoy are processes. Every run begins cold, with the same arrivals and the same total
load for each number of replicas, which take turns within each cell. The first part of each run is
left out, as in `make bench-replicas`. All processes share the cores with the client, so that what
four replicas cost in CPU is in their figures, too.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from rich.console import Console
from rich.table import Table

from lodestar_extproc.demo.bootstrap import Ports, bootstrap
from lodestar_extproc.demo.processes import Processes, beside_python, free_ports
from lodestar_extproc.demo.stack import ENGINE_IS_UP, LODESTAR
from lodestar_extproc.evaluation.chats import MIXES, Chats
from lodestar_extproc.evaluation.load import LoadClient, LoadRecord

FRAME_MS = 30
LEFT_OUT = 0.25  # of a run: the model is cold
RESTART_AT_S = (15.0, 30.0)
REDIS_IS_UP = re.compile(r"(Ready to accept connections)")


@dataclass(frozen=True, slots=True)
class Cell:
    """A fleet and what it is asked: enough that requests wait for each other."""

    fleet: str
    workload: str
    rate_per_s: float

    def __str__(self) -> str:
        return f"{self.fleet} {self.workload}, {self.rate_per_s:g}/s"


CELLS = (
    Cell("a30:4", "chats", 18.0),
    Cell("a30:4", "mixed", 10.0),
    Cell("a30:2,v100:2", "chats", 14.0),
    Cell("a30:2,v100:2", "mixed", 8.0),
    Cell("l20:2,a30:2", "chats", 20.0),
    Cell("l20:2,a30:2", "mixed", 12.0),
)


class Replica:
    """One `serve`, which can be ended and begun again at the same port."""

    def __init__(self, config: Path, port: int, folder: Path) -> None:
        (admin,) = free_ports(1)
        self.ready_url = f"http://127.0.0.1:{admin}/ready"
        self._log = folder / f"replica-{port}.log"
        listen = ("--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}")
        self._command = [*LODESTAR, "serve", "--envoy-config", str(config), *listen]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin it."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)

    async def end(self) -> None:
        """In good order."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(self._process.wait)


@dataclass(frozen=True, slots=True)
class Stack:
    """What is asked, and who decides."""

    url: str
    replicas: list[Replica]


@asynccontextmanager
async def running(fleet: str, n_replicas: int, folder: Path) -> AsyncIterator[Stack]:
    """Engines, a store, replicas and Envoy, all cold."""
    n_engines = sum(int(part.partition(":")[2]) for part in fleet.split(","))
    async with AsyncExitStack() as stack:
        processes = stack.enter_context(Processes(folder))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        (redis_port,) = free_ports(1)
        redis = [shutil.which("redis-server") or "valkey-server", "--port", str(redis_port)]
        processes.start("redis", [*redis, "--bind", "127.0.0.1", "--save", ""])
        await processes.said("redis", REDIS_IS_UP)
        simulate = [*LODESTAR, "simulate", "--instances", fleet, "--port", "0"]
        processes.start("engines", simulate)
        addresses = await processes.said("engines", ENGINE_IS_UP, n_engines)
        at = Ports(*free_ports(2), ext_proc=0, lodestar_admin=0)
        ports = free_ports(n_replicas)
        share = f"redis://127.0.0.1:{redis_port}?frame_ms={FRAME_MS}"
        config = _config(at, ports, list(zip(addresses, _kinds(fleet), strict=True)), share)
        file = folder / "envoy.json"
        file.write_text(json.dumps(config))
        replicas = [Replica(file, port, folder) for port in ports]
        for each in replicas:
            each.start()
            stack.push_async_callback(each.end)
        for each in replicas:
            await processes.ready(session, each.ready_url)
        command = [beside_python("envoy"), "--config-path", str(file), "--concurrency", "1"]
        processes.start("envoy", [*command, "--log-level", "error", "--use-dynamic-base-id"])
        await processes.ready(session, f"http://127.0.0.1:{at.envoy_admin}/ready")
        await asyncio.sleep(1.0)  # Envoy's first checks of its clusters
        yield Stack(f"http://127.0.0.1:{at.listener}", replicas)


def _kinds(fleet: str) -> list[str]:
    parts = (part.partition(":") for part in fleet.split(","))
    return [kind for kind, _, count in parts for _ in range(int(count))]


def _config(
    at: Ports, ports: Sequence[int], engines: Sequence[tuple[str, str]], share: str
) -> dict[str, Any]:
    config: dict[str, Any] = bootstrap(at, engines, {"policy": "learned", "share": share})
    ours = next(c for c in config["staticResources"]["clusters"] if c["name"] == "lodestar")
    [locality] = ours["loadAssignment"]["endpoints"]
    [entry] = locality["lbEndpoints"]
    locality["lbEndpoints"] = []
    for port in ports:
        another = copy.deepcopy(entry)
        another["endpoint"]["address"]["socketAddress"]["portValue"] = port
        locality["lbEndpoints"].append(another)
    return config


async def run(
    cell: Cell, n_replicas: int, for_s: float, seed: int, *, restart: bool = False
) -> list[LoadRecord]:
    """One run of *cell*; every request of it."""
    mix = replace(MIXES[cell.workload], rate_per_s=cell.rate_per_s)
    with tempfile.TemporaryDirectory() as folder:
        async with running(cell.fleet, n_replicas, Path(folder)) as stack:
            client = LoadClient(stack.url, model="llama-3.1-8b")
            restarting = asyncio.create_task(_restart_all(stack.replicas if restart else []))
            records = await client.run(Chats(mix, seed, for_s))
            await restarting
            return records


async def _restart_all(replicas: Sequence[Replica]) -> None:
    """Each in its turn, once what was begun before has long been up."""
    began_s = time.monotonic()
    for replica, at_s in zip(replicas, RESTART_AT_S, strict=False):
        await asyncio.sleep(at_s - (time.monotonic() - began_s))
        await replica.end()
        replica.start()


def figures(records: Sequence[LoadRecord], for_s: float, left_out: float) -> dict[str, float]:
    """Of what was sent after the beginning."""
    kept = [r for r in records if r.at_s >= left_out * for_s]
    ttft_s = np.array([r.ttft_s for r in kept if r.ttft_s is not None])
    return {
        "requests": float(len(kept)),
        "failed": float(sum(bool(r.failure) for r in records)),
        "ttft_mean_s": float(ttft_s.mean()),
        "ttft_p99_s": float(np.percentile(ttft_s, 99)),
    }


async def compare(options: argparse.Namespace, console: Console) -> list[dict[str, Any]]:
    """Every cell with every number of replicas, by turns."""
    found = []
    for cell in CELLS[: options.cells]:
        for seed in range(1, options.seeds + 1):
            for n in options.replicas:
                records = await run(cell, n, options.seconds, seed)
                told = {"cell": str(cell), "seed": seed, "replicas": n}
                found.append(told | figures(records, options.seconds, LEFT_OUT))
                console.print(found[-1])
    return found


async def restarts(options: argparse.Namespace, console: Console) -> list[dict[str, Any]]:
    """Two replicas, left alone or restarted one after the other, over the whole of each run."""
    found = []
    for cell in CELLS[: options.cells]:
        for restart in (False, True):
            records = await run(cell, 2, options.seconds, 1, restart=restart)
            told = {"cell": str(cell), "seed": 1, "replicas": "restarted" if restart else "left"}
            found.append(told | figures(records, options.seconds, 0.0))
            console.print(found[-1])
    return found


def show(found: Sequence[dict[str, Any]], base: Any, console: Console) -> None:
    """Geometric means over cells and seeds of each run's ratio to its base."""
    table = Table(title=f"over {base}, geometric mean")
    for head in ("replicas", "TTFT mean", "P99", "worst mean", "worst P99", "runs", "failed"):
        table.add_column(head)
    for n in dict.fromkeys(row["replicas"] for row in found):
        rows = [row for row in found if row["replicas"] == n]
        cells = [str(n)]
        ratios = [
            [row[what] / _base_of(row, found, base)[what] for row in rows]
            for what in ("ttft_mean_s", "ttft_p99_s")
        ]
        cells += [f"{np.exp(np.mean(np.log(each))):.3f}" for each in ratios]
        cells += [f"{max(each):.2f}" for each in ratios]
        cells += [str(len(rows)), f"{sum(row['failed'] for row in rows):.0f}"]
        table.add_row(*cells)
    console.print(table)


def _base_of(row: dict[str, Any], found: Sequence[dict[str, Any]], base: Any) -> dict[str, Any]:
    same = (each for each in found if (each["cell"], each["seed"]) == (row["cell"], row["seed"]))
    return next(each for each in same if each["replicas"] == base)


def main() -> None:
    """Run, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--restart", action="store_true", help="restart replicas instead")
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--cells", type=int, default=len(CELLS), help="the first so many")
    parser.add_argument("--seconds", type=float, default=60.0, help="of arrivals, for each run")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write every run's figures here")
    options = parser.parse_args()
    console = Console(width=120, file=sys.stdout)
    work = restarts if options.restart else compare
    found = asyncio.run(work(options, console))
    show(found, "left" if options.restart else options.replicas[0], console)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
