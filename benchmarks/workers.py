"""How requests a second grow with `serve --workers`: `python benchmarks/workers.py`.

Behind a real Envoy, with all three streams, from a client that asks again as soon as it is
answered. Engines are a second Envoy that answers each request at once with the same four tokens, so
that the service is what there is least of. Each number of workers, on one port that they share and
on a port each, has an Envoy of its own; they take turns in every round.

Everything runs on the same cores: with N of them no more than N workers can help, less what client
and Envoys take. CPU is that of all processes of the service.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from extproc_cost import UNWATCHING, bodies, consecutive_ports, cpu_s, opened_session
from rich.console import Console
from rich.table import Table

from lodestar_extproc.demo.bootstrap import Ports, bootstrap
from lodestar_extproc.demo.processes import Processes, beside_python, free_ports

N_ENGINES = 4
CONCURRENCY = 32
WARM_UP_S, ROUND_S = 6.0, 8.0
TOKEN = b'data: {"id": "a", "choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n'
ANSWER = TOKEN * 4 + b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Setup:
    """So many workers, on one port or on one each."""

    n_workers: int
    ports_each: bool = False

    def __str__(self) -> str:
        where = "a port each" if self.ports_each else "one port"
        return f"{self.n_workers}, {where}" if self.n_workers > 1 else "1"


SETUPS = (Setup(1), Setup(2), Setup(2, ports_each=True))


@dataclass(frozen=True, slots=True)
class Running:
    """A service, and the raw address of the Envoy before it."""

    setup: Setup
    pid: int
    port: int

    def cpu_s(self) -> float:
        """Of the parent and its workers so far."""
        return sum(map(cpu_s, [self.pid, *_children(self.pid)]))


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class World:
    """Engines, services and Envoys, each a process."""

    def __init__(self, processes: Processes, session: aiohttp.ClientSession, folder: Path) -> None:
        self._processes = processes
        self._session = session
        self._folder = folder
        self._engines: list[int] = []

    async def start_engines(self) -> None:
        """One Envoy that answers on several ports."""
        self._engines = free_ports(N_ENGINES)
        (admin,) = free_ports(1)
        await self._start_envoy("engines", _engines(self._engines, admin), admin)

    async def start(self, setup: Setup) -> Running:
        """A service of *setup*, and its Envoy."""
        name = str(setup).replace(", ", "-").replace(" ", "-")
        at = Ports(*free_ports(3), lodestar_admin=consecutive_ports(setup.n_workers))
        ports = [at.ext_proc, *free_ports(setup.n_workers - 1)] if setup.ports_each else []
        config = self._config(at, ports)
        file = self._folder / f"{name}.json"
        file.write_text(json.dumps(config))
        command = [sys.executable, "-m", "lodestar_extproc", "serve", "--envoy-config", str(file)]
        options = ["--workers", str(setup.n_workers), "--drain", "0"]
        admin = f"127.0.0.1:{at.lodestar_admin}"
        pid = self._processes.start(name, [*command, *options, "--admin", admin])
        for number in range(setup.n_workers):
            ready = f"http://127.0.0.1:{at.lodestar_admin + number}/ready"
            await self._processes.ready(self._session, ready)
        await self._start_envoy(f"envoy-{name}", config, at.envoy_admin)
        return Running(setup, pid, at.listener)

    def _config(self, at: Ports, ports: list[int | str]) -> dict[str, Any]:
        engines = [(f"127.0.0.1:{port}", "h100") for port in self._engines]
        config: dict[str, Any] = bootstrap(at, engines, {"policy": "learned"} | UNWATCHING)
        clusters = config["staticResources"]["clusters"]
        ours = next(each for each in clusters if each["name"] == "lodestar")
        [locality] = ours["loadAssignment"]["endpoints"]
        [first] = locality["lbEndpoints"]
        for port in ports[1:]:
            another = copy.deepcopy(first)
            another["endpoint"]["address"]["socketAddress"]["portValue"] = port
            locality["lbEndpoints"].append(another)
        return config

    async def _start_envoy(self, name: str, config: dict[str, Any], admin: int) -> None:
        file = self._folder / f"{name}.envoy.json"
        file.write_text(json.dumps(config))
        command = [beside_python("envoy"), "--config-path", str(file), "--concurrency", "2"]
        quiet = ["--log-level", "error", "--use-dynamic-base-id"]
        self._processes.start(name, [*command, *quiet])
        await self._processes.ready(self._session, f"http://127.0.0.1:{admin}/ready")


def _engines(ports: list[int], admin: int) -> dict[str, Any]:
    """An Envoy that answers on each of *ports*."""
    answer = {
        "match": {"prefix": "/"},
        "direct_response": {"status": 200, "body": {"inline_string": ANSWER.decode()}},
        "response_headers_to_add": [
            {
                "header": {"key": "content-type", "value": "text/event-stream"},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ],
    }
    types = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "engines",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [answer]}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{types}.http.router.v3.Router"},
            }
        ],
    }
    chain = {
        "filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
        ]
    }
    listeners = [
        {"name": str(port), "address": _address(port), "filter_chains": [chain]} for port in ports
    ]
    return {"admin": {"address": _address(admin)}, "static_resources": {"listeners": listeners}}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


async def load(port: int, for_s: float, seed: int) -> int:
    """Ask at *port* for so long; the number of whole answers."""
    source, n_answers = bodies(seed), 0
    give_up_at_s = time.monotonic() + for_s

    async def client() -> None:
        nonlocal n_answers
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.monotonic() < give_up_at_s:
            body = next(source)
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json"
                b"\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
            )
            answer = await reader.readuntil(b"[DONE]")
            await reader.readuntil(b"\r\n0\r\n\r\n" if b"chunked" in answer else b"\n\n")
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(answer[:200].decode(errors="replace"))
            n_answers += 1
        writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENCY):
            group.create_task(client())
    return n_answers


async def measure(rounds: int, seed: int, folder: Path) -> dict[str, dict[str, list[float]]]:
    """By setup, requests a second and CPU milliseconds a request, of each round."""
    found: dict[str, dict[str, list[float]]] = {}
    with Processes(folder) as processes:
        async with opened_session() as session:
            world = World(processes, session, folder)
            await world.start_engines()
            services = [await world.start(setup) for setup in SETUPS]
            for service in services:
                await load(service.port, WARM_UP_S, seed)
            for number in range(rounds):
                for service in services:
                    before_s, began_s = service.cpu_s(), time.monotonic()
                    n = await load(service.port, ROUND_S, seed + number)
                    took_s = time.monotonic() - began_s
                    of = found.setdefault(str(service.setup), {"per_s": [], "cpu_ms": []})
                    of["per_s"].append(n / took_s)
                    of["cpu_ms"].append(1e3 * (service.cpu_s() - before_s) / n)
                processes.check()
    return found


def show(found: dict[str, dict[str, list[float]]], console: Console) -> None:
    """Medians, and those of each round's ratio to one worker."""
    one = found[str(Setup(1))]
    table = Table(title=f"workers, {os.cpu_count()} cores for everything")
    for head in ("workers", "requests/s", "over one", "CPU ms a request", "over one"):
        table.add_column(head)
    for name, of in found.items():
        cells = [name]
        for what, shape in (("per_s", "{:.0f}"), ("cpu_ms", "{:.2f}")):
            ratios = np.array(of[what]) / np.array(one[what])
            cells += [shape.format(np.median(of[what])), f"{np.median(ratios):.2f}"]
        table.add_row(*cells)
    console.print(table)


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write every round's figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(options.rounds, options.seed, Path(folder)))
    show(found, Console())
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
