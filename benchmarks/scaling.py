"""How the cost of a request grows with fleet, prompt and load: `make bench-scaling`.

Three tables, each with the exponent of the growth from the row before: 1 is in proportion, 0 not at
all. A decision by the number of endpoints and the handler by the length of a prompt are those of
`hot_path.py`, CPU of the calls alone; a request by how many are in flight is that of
`extproc_cost.py`, the service's CPU behind a real Envoy beside that of a service that does nothing.
Rows of a table take turns, round by round; medians of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import signal
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import extproc_cost
import hot_path
import numpy as np
from rich.console import Console
from rich.table import Table

from lodestar_extproc.demo.processes import Processes
from lodestar_extproc.service.garbage import settle_garbage

ENDPOINTS = (2, 8, 32, 128, 512)
PROMPT_TOKENS = (500, 2_000, 8_000, 32_000, 100_000)
PROMPT_ENDPOINTS = 8
IN_FLIGHT = (1, 4, 16, 64)
SERVICES = (extproc_cost.OURS, extproc_cost.NOTHING)
Row = Mapping[str, float]


def by_endpoints(rounds: int, n: int, seed: int) -> dict[int, Row]:
    """A learned decision's and a first token's CPU in µs, by the number of endpoints."""
    worlds = {size: hot_path.World(hot_path.Kind("learned", size), seed) for size in ENDPOINTS}
    for n_endpoints, world in worlds.items():
        world.serve(40 * n_endpoints + 400)
    settle_garbage()
    found: dict[int, list[Row]] = {n_endpoints: [] for n_endpoints in worlds}
    for _ in range(rounds):
        for n_endpoints, world in worlds.items():
            timings = world.serve(n)
            found[n_endpoints].append(
                {
                    "decision": timings["decide"].percentiles_us()["cpu_p50_us"],
                    "first token": timings["learn"].percentiles_us()["cpu_p50_us"],
                }
            )
    return _medians(found)


def by_prompt(rounds: int, n: int, seed: int) -> dict[int, Row]:
    """The handler's CPU in µs, bytes in and bytes out, by the tokens of a prompt."""
    world = hot_path.World(hot_path.Kind("learned", PROMPT_ENDPOINTS), seed)
    world.serve(1000)
    settle_garbage()
    rng, headers = random.Random(seed), hot_path.opening_message()
    found: dict[int, list[Row]] = {n_tokens: [] for n_tokens in PROMPT_TOKENS}
    for _ in range(rounds):
        for n_tokens in PROMPT_TOKENS:
            watch = hot_path.Stopwatch()
            for _ in range(n):
                world.handle(headers, hot_path.long_body(rng, n_tokens), watch)
            found[n_tokens].append({"handler": watch.percentiles_us()["cpu_p50_us"]})
    return _medians(found)


async def by_load(rounds: int, n: int, seed: int, folder: Path) -> dict[int, Row]:
    """CPU a request in µs of ours and of one that does nothing, by how many are in flight."""
    with Processes(folder) as processes:
        async with extproc_cost.opened_session() as session:
            world = extproc_cost.World(processes, session, folder)
            await world.start_engines(extproc_cost.ENGINES)
            targets = [await world.start(name) for name in SERVICES]
            bench = extproc_cost.Bench(session, seed)
            for target in targets:
                await bench.load(target, extproc_cost.WARM_UP, max(IN_FLIGHT))
            found: dict[int, list[Row]] = {in_flight: [] for in_flight in IN_FLIGHT}
            for _ in range(rounds):
                for in_flight in IN_FLIGHT:
                    used_us = {t.name: 1e6 * await bench.load(t, n, in_flight) for t in targets}
                    found[in_flight].append(used_us)
                processes.check()
            return _medians(found)


def _medians(found: Mapping[int, Sequence[Row]]) -> dict[int, Row]:
    """Of the rounds of each row, column by column."""
    return {
        size: {name: float(np.median([row[name] for row in rows])) for name in rows[0]}
        for size, rows in found.items()
    }


def exponents(sizes: Sequence[int], values: Sequence[float]) -> list[float]:
    """Of the growth from each size to the next.

    >>> exponents([1, 2, 8], [5.0, 10.0, 10.0])
    [1.0, 0.0]
    """
    return [
        math.log(values[i] / values[i - 1]) / math.log(sizes[i] / sizes[i - 1])
        for i in range(1, len(sizes))
    ]


def show(title: str, rows: Mapping[int, Row], console: Console) -> None:
    """A table, with the exponent beside each figure but the first."""
    sizes = list(rows)
    columns = list(rows[sizes[0]])
    table = Table(title, box=None)
    grown = {}
    for name in columns:
        table.add_column(f"{name}, µs", justify="right")
        table.add_column("exponent", justify="right")
        grown[name] = ["", *(f"{e:.2f}" for e in exponents(sizes, [rows[s][name] for s in sizes]))]
    for i, size in enumerate(sizes):
        cells = [cell for name in columns for cell in (f"{rows[size][name]:.0f}", grown[name][i])]
        table.add_row(f"{size:,}", *cells)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=400, help="of a round, each row")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the rows here too")
    asked = parser.parse_args()
    # So that nothing is left running however this ends.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console, given = Console(width=120), (asked.rounds, asked.requests, asked.seed)
    tables = {
        "endpoints": by_endpoints(*given),
        "tokens of a prompt": by_prompt(asked.rounds, max(5, asked.requests // 20), asked.seed),
    }
    with tempfile.TemporaryDirectory(prefix="lodestar-scaling-") as folder:
        tables["requests in flight"] = asyncio.run(by_load(*given, Path(folder)))
    for title, rows in tables.items():
        show(title, rows, console)
    if asked.json:
        asked.json.write_text(json.dumps(tables, indent=2) + "\n")


if __name__ == "__main__":
    main()
