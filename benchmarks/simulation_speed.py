"""How many requests a second of one core `bench` simulates: the serving router, engines and all.

Every policy in turn, round after round, on the same arrivals at eight engines; counted is the
processor's time of the runs, without that of making the arrivals. On a machine that other work is
done on too, the median says what it had left for this and the best round what it can do.

Examples:

    python benchmarks/simulation_speed.py --traces TRACES
    python benchmarks/simulation_speed.py --workload prefix50 --policies lmetric,learned --rounds 3
"""

from __future__ import annotations

import argparse
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from lodestar_extproc.evaluation.bench_names import STANDARD_FLEETS, WORKLOADS
from lodestar_extproc.evaluation.contenders import LEARNED, parse_contender
from lodestar_extproc.evaluation.saturation import known_saturation
from lodestar_extproc.evaluation.trial import Cell, Trial, generate, run_contender
from lodestar_extproc.policies.heuristics import HEURISTICS

SEED = 1
LOAD = 0.8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workload", choices=WORKLOADS, default="conversation")
    parser.add_argument("--fleet", choices=STANDARD_FLEETS, default="a30x8")
    parser.add_argument("--policies", default=",".join([*HEURISTICS, LEARNED]))
    parser.add_argument("--requests", type=int, default=5000, help="of each run")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--traces", type=Path, default=Path("traces"), help="of the public traces")
    asked = parser.parse_args()
    try:
        trial = _trial(asked)
        found = _requests_per_s(trial, asked.rounds)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    _show(trial.cell.name, found)


def _trial(asked: argparse.Namespace) -> Trial:
    rate_per_s = LOAD * known_saturation()[asked.fleet][asked.workload]
    cell = Cell(asked.workload, asked.fleet, "steady", LOAD, (rate_per_s,))
    return Trial(cell, SEED, asked.requests, tuple(asked.policies.split(",")), asked.traces)


def _requests_per_s(trial: Trial, n_rounds: int) -> Mapping[str, Sequence[float]]:
    """Of every policy, a number a round, without the first round, which loads what is compiled."""
    contenders = [parse_contender(text) for text in trial.contenders]
    workload = generate(trial)
    found: dict[str, list[float]] = {c.text: [] for c in contenders}
    for i in track(range(n_rounds + 1), "rounds", console=Console(stderr=True)):
        for contender in contenders:
            figures = run_contender(trial, contender, workload)
            if i > 0:
                found[contender.text].append(figures.simulated_per_s)
    return found


def _show(cell: str, found: Mapping[str, Sequence[float]]) -> None:
    python = f"Python {platform.python_version()}, {platform.machine()}"
    table = Table(title=f"Requests simulated in a second of one core: {cell}, {python}")
    table.add_column("policy")
    for name in ("median", "best", "worst"):
        table.add_column(name, justify="right")
    for policy, rates in found.items():
        numbers = (statistics.median(rates), max(rates), min(rates))
        table.add_row(policy, *(f"{number:,.0f}" for number in numbers))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
