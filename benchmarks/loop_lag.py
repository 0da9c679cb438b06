"""How late the service's event loop is while heavy things go on beside the requests.

usage: make bench-loop-lag ARGS="--rounds 3 --seconds 8 --json FILE"

`serve` runs behind a real Envoy under 20 requests a second, and a timer in its loop is set every
2 ms: how late it comes is the lag, which a request would have waited, too. Beside it the CPU time
that the process (all of its threads) used meanwhile is taken: *own* is the smaller of the two, so
that a machine whose cores are busy with others' work does not count as our lag. Each thing takes
turns with what it is compared with, in one run; `added` is the difference of their p99.9.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from lag_service import CPU, LATE, LOOP_CPU, N_COLUMNS, WHEN
from rich.console import Console
from rich.table import Table

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
# These stand with the tests, which start the same processes.
from envoy_process import cluster_of
from fault import beside
from fault_plan import Form, assign
from fault_stack import FaultStack, running_fault_stack
from faults_of_engines import pages
from faults_of_service import long_bodies
from open_load import OpenLoad
from process_stack import REQUEST_TIMEOUT
from waiting import until
from wheels import NEWEST

LAG_SERVICE = Path(__file__).with_name("lag_service.py")
RATE, HIGH_RATE = 20.0, 60.0
BODY_BYTES = 10_000_000
BODY_EVERY_S = 1.0
N_ENDPOINTS, N_CHANGING = 1000, 100
CHANGE_EVERY_S = 1.0
N_OPERATORS = 4
PAGES = ("/metrics", "/decisions?limit=1000", "/endpoints", "/")
SETTLED_S = 1.5
"""Between two things: what was begun has ended."""
QUIET = "nothing else"
NEVER_S = 86_400.0
Doing = Callable[[FaultStack], AbstractAsyncContextManager[None]]


@dataclass
class Thing:
    """One thing that goes on beside the requests.

    Attributes:
        against: the name of what it takes turns with.
    """

    name: str
    do: Doing
    against: str = QUIET
    samples: list[np.ndarray] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """Percentiles of the lag and of our own part of it, ms."""
        every = np.concatenate(self.samples)
        late, cpu, loop = every[:, LATE], every[:, CPU], every[:, LOOP_CPU]
        told = {"samples": float(len(every))}
        parts = {"lag": late, "own": np.minimum(late, cpu), "loop": np.minimum(late, loop)}
        for name, values in parts.items():
            for percent in (50, 99, 99.9):
                told[f"{name}_p{percent:g}_ms"] = float(1e3 * np.percentile(values, percent))
            told[f"{name}_max_ms"] = float(1e3 * values.max())
        return {key: round(value, 2) for key, value in told.items()}


@asynccontextmanager
async def nothing(_: FaultStack) -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def long_prompts(stack: FaultStack) -> AsyncIterator[None]:
    said = "The tide table of the harbour. " * (BODY_BYTES // 31)
    content = {"model": "m", "messages": [{"role": "user", "content": said}], "stream": False}
    body = json.dumps(content).encode()

    async def ask() -> None:
        async with aiohttp.ClientSession(timeout=REQUEST_TIMEOUT) as session:
            while True:
                url = f"{stack.envoy.url}/v1/chat/completions"
                async with session.post(url, data=io.BytesIO(body)) as response:
                    await response.read()
                    assert response.status == 200, response.status
                await asyncio.sleep(BODY_EVERY_S)

    async with beside(ask()):
        yield


@asynccontextmanager
async def many_endpoints(stack: FaultStack) -> AsyncIterator[None]:
    assign_many(stack, 0)
    await until(lambda: has_endpoints(stack, N_ENDPOINTS))
    # Their first probes are over, too.
    await asyncio.sleep(2 * SETTLED_S)
    yield


@asynccontextmanager
async def changing_endpoints(stack: FaultStack) -> AsyncIterator[None]:
    async def change() -> None:
        turn = 0
        while True:
            turn += 1
            assign_many(stack, turn)
            await asyncio.sleep(CHANGE_EVERY_S)

    async with many_endpoints(stack), beside(change()):
        yield


def assign_many(stack: FaultStack, turn: int) -> None:
    """A tenth of them others each turn; at none but the engines anybody listens."""
    assert stack.endpoints_file is not None
    hosts = range(N_ENDPOINTS - len(stack.engines) - N_CHANGING)
    stay = [f"127.1.{i // 200}.{i % 200 + 1}:9" for i in hosts]
    come = [f"127.2.{turn % 200}.{i + 1}:9" for i in range(N_CHANGING)]
    assign(stack.endpoints_file, [*(e.address for e in stack.engines), *stay, *come])


async def has_endpoints(stack: FaultStack, n: int) -> bool:
    return len((await stack.service.pool())["endpoints"]) == n


@asynccontextmanager
async def more_requests(stack: FaultStack) -> AsyncIterator[None]:
    async with OpenLoad(stack.envoy.url, HIGH_RATE - RATE):
        yield


@asynccontextmanager
async def checkpoints(stack: FaultStack) -> AsyncIterator[None]:
    await have_set(stack, checkpoint_interval_s=0.2)
    async with more_requests(stack):
        yield
    await have_set(stack, checkpoint_interval_s=NEVER_S)


@asynccontextmanager
async def operators(stack: FaultStack) -> AsyncIterator[None]:
    async def ask(first: int) -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                for path in (*PAGES[first:], *PAGES[:first]):
                    async with session.get(stack.service.url + path) as response:
                        await response.read()

    async with beside(*(ask(i) for i in range(N_OPERATORS))):
        yield


async def have_set(stack: FaultStack, **changes: Any) -> None:
    """Have the pool's settings changed, in the file that is watched."""
    file = stack.envoy.config_file
    config = json.loads(file.read_text())
    cluster_of(config, "engines")["metadata"]["filter_metadata"]["lodestar"] |= changes
    before = await stack.service.metric("lodestar_config_reloads_total")
    file.write_text(json.dumps(config))

    async def applied() -> bool:
        return await stack.service.metric("lodestar_config_reloads_total") > before

    await until(applied)


def things() -> list[Thing]:
    often, crowd = f"{HIGH_RATE:g} requests a second", f"{N_ENDPOINTS} endpoints"
    return [
        Thing(QUIET, nothing),
        Thing("a prompt of 10 MB a second", long_prompts),
        Thing("prompts of 256 KB, two at a time", long_bodies),
        Thing("metric pages of 8 MB from 3 engines", pages("page is too large")),
        Thing("metric pages of 3 MB from 3 engines", pages("page is huge")),
        Thing("four clients hammer the operators' pages", operators),
        Thing(often, more_requests),
        Thing(f"{often}, 5 checkpoints a second", checkpoints, often),
        Thing(crowd, many_endpoints),
        Thing(f"{crowd}, of which 100 change a second", changing_endpoints, crowd),
    ]


async def measure(stack: FaultStack, samples: np.ndarray, thing: Thing, seconds: float) -> None:
    async with thing.do(stack):
        begin_s = time.monotonic()
        await asyncio.sleep(seconds)
        end_s = time.monotonic()
    when = samples[:, WHEN]
    thing.samples.append(samples[(begin_s <= when) & (when < end_s)].copy())
    if stack.endpoints_file is not None:
        assign(stack.endpoints_file, [engine.address for engine in stack.engines])
    await asyncio.sleep(SETTLED_S)


async def run(asked: argparse.Namespace) -> list[Thing]:
    measured = [each for each in things() if asked.only in each.name or each.name == QUIET]
    with tempfile.TemporaryDirectory() as written:
        folder, file = Path(written), Path(written) / "lag"
        run_by = (sys.executable, str(LAG_SERVICE), str(file))
        wheel = replace(NEWEST, file=asked.file)
        async with running_fault_stack(Form.FILE, wheel, folder, run_by) as stack:
            samples = np.memmap(file, float, "r").reshape(-1, N_COLUMNS)
            await have_set(stack, checkpoint_interval_s=NEVER_S)
            async with OpenLoad(stack.envoy.url, RATE) as load:
                await asyncio.sleep(SETTLED_S)
                for turn in range(asked.rounds):
                    for thing in measured if turn % 2 == 0 else reversed(measured):
                        await measure(stack, samples, thing, asked.seconds)
    if load.problems:
        said = load.problems[0].problem
        print(f"{len(load.problems)} of {len(load.ended)} requests failed: {said}")
    return measured


SHOWN = {
    "lag p50": "lag_p50_ms",
    "p99": "lag_p99_ms",
    "p99.9": "lag_p99.9_ms",
    "max": "lag_max_ms",
    "own p99": "own_p99_ms",
    "own p99.9": "own_p99.9_ms",
    "own max": "own_max_ms",
    "loop p99.9": "loop_p99.9_ms",
}


def table(measured: list[Thing]) -> Table:
    shown = Table("while", *SHOWN, "added to own p99.9", title="ms")
    figures = {thing.name: thing.figures() for thing in measured}
    for thing in measured:
        told, base = figures[thing.name], figures.get(thing.against, figures[QUIET])
        added_ms = told["own_p99.9_ms"] - base["own_p99.9_ms"]
        shown.add_row(
            thing.name, *(f"{told[key]:.1f}" for key in SHOWN.values()), f"{added_ms:+.1f}"
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each thing, each round")
    parser.add_argument("--only", default="", help="things whose name holds this word")
    parser.add_argument("--file", default=NEWEST.file, help="of envoy/, which Envoy is run with")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    asked = parser.parse_args()
    measured = asyncio.run(run(asked))
    Console(width=160).print(table(measured))
    if asked.json:
        figures = [{"while": thing.name, **thing.figures()} for thing in measured]
        asked.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
