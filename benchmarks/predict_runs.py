"""What fitted engines say of real runs: the same arrivals, each routed by its own policy.

`calibrate.py` replays the routing that was recorded; here the router decides anew, in virtual time,
as it would have to before a run. The engines are those of `calibrate.py --json`.

Examples:

    python benchmarks/predict_runs.py out/fitted.json --rates 42.5,54 --rounds 1,2,3

    python benchmarks/predict_runs.py out/fitted.json --beside benchmarks/gpu/results/unequal
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "vllm"))

from contenders import OTHER_ROUTERS, in_virtual_time
from real_runs import TRACES, Cell, prompt_of
from session_text import Answered

from lodestar_extproc.evaluation.clairvoyant import Oracle
from lodestar_extproc.evaluation.contenders import parse_contender
from lodestar_extproc.evaluation.workloads.arrivals import OpenLoop
from lodestar_extproc.simulator.accelerators import EngineSpec, StepCost
from lodestar_extproc.simulator.arrival import VirtualRequest, Workload
from lodestar_extproc.simulator.cluster import VirtualCluster
from lodestar_extproc.simulator.machine import new_machine
from lodestar_extproc.simulator.record import RequestRecord

POLICIES = ("learned", "prefix_affinity_token_load", "lmetric")


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one run after its warm-up, times in seconds; *requests* of the whole run.

    Attributes:
        cached_ratio: share of the prompts' tokens that were hit.
    """

    requests: int
    ttft_mean_s: float
    ttft_p90_s: float
    ttft_p99_s: float
    e2e_mean_s: float
    cached_ratio: float


def main() -> None:
    asked = arguments()
    engines = read_engines(asked.fitted)
    if asked.engines:
        engines = [next(e for e in engines if e.accelerator.endswith(n)) for n in asked.engines]
    if asked.beside:
        rows = beside(asked.beside, engines, asked.traces)
    else:
        rows = predictions(asked, engines)
    for row in rows:
        print(row, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("fitted", type=Path, help="engines that calibrate.py --json has written")
    parser.add_argument("--beside", type=Path, help="results whose cells to predict")
    parser.add_argument("--workload", default="mixed")
    parser.add_argument("--rates", type=numbers, default=(42.52,), metavar="R,...")
    parser.add_argument("--rounds", type=numbers, default=(1, 2, 3), metavar="N,...")
    parser.add_argument("--policies", type=words, default=POLICIES, metavar="NAME,...")
    parser.add_argument("--duration", type=float, default=40.0, help="seconds of arrivals")
    parser.add_argument(
        "--engines", type=words, metavar="END,...", help="ends of names, to make another fleet"
    )
    parser.add_argument("--traces", type=Path, default=TRACES)
    return parser.parse_args()


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def read_engines(path: Path) -> list[EngineSpec]:
    """Those of `calibrate.py --json`, by name."""
    return [
        EngineSpec(**(values | {"cost": StepCost(**values["cost"])}))
        for _, values in sorted(json.loads(path.read_text()).items())
    ]


def predictions(asked: argparse.Namespace, engines: Sequence[EngineSpec]) -> Iterator[str]:
    """Every rate and policy, a figure a round in ms."""
    yield "| requests/s | policy | mean | P99 | end to end, s | prefix hits |"
    yield "|---|---|---|---|---|---|"
    for rate_per_s in asked.rates:
        for policy in asked.policies:
            found = [
                predict(
                    Cell("fitted", asked.workload, rate_per_s, policy, int(n), asked.duration),
                    engines,
                    asked.traces,
                )
                for n in asked.rounds
            ]
            means = " ".join(f"{1e3 * each.ttft_mean_s:.0f}" for each in found)
            p99s = " ".join(f"{1e3 * each.ttft_p99_s:.0f}" for each in found)
            ends = " ".join(f"{each.e2e_mean_s:.2f}" for each in found)
            hits = " ".join(f"{each.cached_ratio:.2f}" for each in found)
            yield f"| {rate_per_s:g} | {policy} | {means} | {p99s} | {ends} | {hits} |"


def beside(folder: Path, engines: Sequence[EngineSpec], traces: Path) -> Iterator[str]:
    """Every real run of *folder*, and what was to be expected of it."""
    cells = json.loads((folder / "summary.json").read_text())["cells"]
    yield "| workload | requests/s | policy | round | mean, real / predicted, ms | P99 |"
    yield "|---|---|---|---|---|---|"
    for each in sorted(cells, key=lambda c: (c["workload"], c["rate_per_s"], c["policy"])):
        cell = Cell.of(each)
        if cell.round == 0 or cell.policy in OTHER_ROUTERS:
            continue
        said = predict(cell, engines, traces)
        warm = each["warm"]
        yield (
            f"| {cell.workload} | {cell.rate_per_s:g} | {cell.policy} | {cell.round} "
            f"| {1e3 * warm['ttft_mean_s']:.0f} / {1e3 * said.ttft_mean_s:.0f} "
            f"| {1e3 * warm['ttft_p99_s']:.0f} / {1e3 * said.ttft_p99_s:.0f} |"
        )


def predict(cell: Cell, engines: Sequence[EngineSpec], traces: Path) -> Figures:
    """One run from cold, in virtual time."""
    contender = parse_contender(in_virtual_time(cell.policy))
    machines = [new_machine(i, spec, cell.round * 1000 + i) for i, spec in enumerate(engines)]
    oracle = Oracle()
    router = contender.router(machines, oracle, cell.round)
    cluster = VirtualCluster(machines, [router], seed=cell.round)
    oracle.watch(cluster)
    return figures(cluster.run(workload_of(cell, traces), sys.maxsize), cell.warm_up_s)


def workload_of(cell: Cell, traces: Path) -> Workload:
    """What *cell* asks, without text."""
    if cell.has_sessions:
        return Answered(cell.sessions())
    return OpenLoop(
        VirtualRequest(arrival.at_s, p.block_ids, p.prompt_tokens, p.output_tokens)
        for arrival in cell.arrivals(on_cpu=False, traces=traces)
        for p in [prompt_of(arrival)]
    )


def figures(records: Sequence[RequestRecord], warm_up_s: float) -> Figures:
    """Of *records* that arrived after *warm_up_s*."""
    warm = [record for record in records if record.arrived_s >= warm_up_s]
    ttft_s = np.array([record.ttft_s for record in warm])
    e2e_s = np.array([record.e2e_s for record in warm])
    return Figures(
        len(records),
        float(ttft_s.mean()),
        float(np.percentile(ttft_s, 90)),
        float(np.percentile(ttft_s, 99)),
        float(e2e_s.mean()),
        sum(r.cached_tokens for r in warm) / sum(r.prompt_tokens for r in warm),
    )


if __name__ == "__main__":
    main()
