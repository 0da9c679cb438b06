"""Saturation: the highest rate a fleet takes of a workload, by which loads are measured.

    python -m lodestar_extproc.evaluation.saturation TRACES

writes the table that is shipped beside this file.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson

from lodestar_extproc.evaluation.bench_names import AGENT_CELLS, STANDARD_FLEETS, WORKLOADS
from lodestar_extproc.evaluation.contenders import parse_contender
from lodestar_extproc.evaluation.trial import Cell, Trial, generate, simulate
from lodestar_extproc.simulator.record import RequestRecord
from lodestar_extproc.terminal import Terminal

TABLE = Path(__file__).with_name("saturation.json")
YARDSTICKS = ("conductor", "lmetric_by_speed")
# As in the study that the loads of the benchmark are from; 9 halvings part rates by 1 %.
SEED = 777
LOWEST_PER_S, HIGHEST_PER_S = 1.0, 250.0
BISECTIONS = 9
TRAFFIC_S = 400.0
FEWEST_REQUESTS, MOST_REQUESTS = 5_000, 14_000
"""Of a run, where nothing else is asked for: enough for a P99, few enough to wait for."""


def requests_at(rate_per_s: float) -> int:
    """How many requests a run at *rate_per_s* has."""
    return int(min(max(TRAFFIC_S * rate_per_s, FEWEST_REQUESTS), MOST_REQUESTS))


def known_saturation() -> dict[str, dict[str, float]]:
    """Requests a second by fleet and workload, as measured once."""
    if not TABLE.is_file():
        return {}
    table: dict[str, dict[str, float]] = orjson.loads(TABLE.read_bytes())["requests_per_s"]
    return table


@functools.cache
def saturation(
    workload: str, fleet: str, traces: Path, tokens_per_hash: int | None = None
) -> float:
    """The highest rate at which one of two yardsticks keeps the queues from growing.

    The yardsticks know the engines' true speed, so no policy that is to be compared is favoured.
    """
    return bisect_rate(
        lambda rate_per_s: is_stable(workload, fleet, traces, rate_per_s, SEED, tokens_per_hash)
    )


def is_stable(
    workload: str,
    fleet: str,
    traces: Path,
    rate_per_s: float,
    seed: int,
    tokens_per_hash: int | None = None,
) -> bool:
    """Whether one of the yardsticks keeps the queues from growing, on the arrivals of *seed*."""
    cell = Cell(workload, fleet, "steady", None, (rate_per_s,))
    trial = Trial(cell, seed, requests_at(rate_per_s), YARDSTICKS, traces, tokens_per_hash)
    arrivals = generate(trial)
    judge = _open_is_stable if arrivals.min_think_s == math.inf else _closed_is_stable
    return any(
        judge(simulate(trial, parse_contender(yardstick), arrivals)) for yardstick in YARDSTICKS
    )


def bisect_rate(stable: Callable[[float], bool]) -> float:
    """Where *stable* turns false, by bisection on a geometric scale; about 1 % wide.

    >>> round(bisect_rate(lambda rate: rate < 20.0), 1)
    19.9
    """
    low, high = LOWEST_PER_S, HIGHEST_PER_S
    for _ in range(BISECTIONS):
        middle = math.sqrt(low * high)
        if stable(middle):
            low = middle
        else:
            high = middle
    return low


def _open_is_stable(records: list[RequestRecord]) -> bool:
    """Whether TTFT has come to rest: the last third is neither slow nor slower than the middle."""
    third = len(records) // 3
    ttft_s = np.array([r.ttft_s for r in records])
    middle_s, last_s = float(ttft_s[third:-third].mean()), float(ttft_s[-third:].mean())
    return last_s < 4.0 and last_s < 1.5 * middle_s + 1.0


def _closed_is_stable(records: list[RequestRecord]) -> bool:
    """Sessions that wait for their answers never queue without bound: TTFT itself must be low."""
    return float(np.mean([r.ttft_s for r in records[len(records) // 4 :]])) < 2.5


def main(traces: Path) -> None:
    """Measure what the shipped table lacks; delete it to measure all."""
    table = known_saturation()
    standard = [(workload, fleet) for fleet in STANDARD_FLEETS for workload in WORKLOADS]
    for workload, fleet in (*standard, *AGENT_CELLS):
        if workload in table.get(fleet, {}):
            continue
        rate_per_s = round(saturation(workload, fleet, traces), 2)
        table.setdefault(fleet, {})[workload] = rate_per_s
        Terminal(stderr=True).print(f"{fleet} {workload}: {rate_per_s} requests/s")
        command = "python -m lodestar_extproc.evaluation.saturation TRACES"
        content = {"command": command, "seed": SEED, "requests_per_s": table}
        TABLE.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
