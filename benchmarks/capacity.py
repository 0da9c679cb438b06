"""How right the pool's capacity at a bound on TTFT is, in virtual time: estimate beside truth.

    python benchmarks/capacity.py TRACES [--quick]

Truth is the highest rate at which at most 5 % of the requests miss the bound, found by running the
fleet at rate after rate. The estimate is what CapacityWatch says at the end of a run at a share of
that rate: it has seen that run alone, and has to tell what the fleet would take.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from lodestar_extproc.evaluation.clairvoyant import Oracle
from lodestar_extproc.evaluation.contenders import parse_contender
from lodestar_extproc.evaluation.fleets import find_fleet
from lodestar_extproc.evaluation.saturation import bisect_rate
from lodestar_extproc.evaluation.workloads.catalog import find_workload
from lodestar_extproc.gain.capacity import LATE_RATIO
from lodestar_extproc.gain.capacity_watch import CapacityWatch
from lodestar_extproc.simulator.cluster import VirtualCluster
from lodestar_extproc.simulator.machine import new_machine
from lodestar_extproc.simulator.record import RequestRecord

FLEETS = ("a30x8", "a30x4+v100x4", "h100x3+l20x3+a30x2")
WORKLOADS = ("synthetic", "prefix30")
SLOS_S = (2.0, 4.0)
LOADS = (0.3, 0.6, 0.9, 1.2)
SEED = 4242  # no result elsewhere is reported on it
N_REQUESTS = 2000


def run(
    traces: Path, fleet: str, workload: str, slo_s: float, rate_per_s: float
) -> tuple[list[RequestRecord], CapacityWatch]:
    """One run of the learned policy, from cold, and what watched it."""
    contender = parse_contender(f"learned:ttft_slo_s={slo_s:g}")
    machines = [
        new_machine(i, spec, SEED * 1000 + i) for i, spec in enumerate(find_fleet(fleet).specs)
    ]
    clock = [0.0]
    watch = CapacityWatch(lambda: contender.settings, lambda: clock[0])
    router = contender.router(machines, Oracle(), SEED, listeners=[watch])
    cluster = VirtualCluster(machines, [router], seed=SEED)
    arrivals = find_workload(workload, traces=traces, tokens_per_hash=None)
    records = cluster.run(arrivals.generate(rate_per_s, SEED, N_REQUESTS), N_REQUESTS)
    clock[0] = max(record.arrived_s for record in records)
    return records, watch


def is_kept(records: list[RequestRecord], slo_s: float) -> bool:
    """Whether at most the allowed share was late, once the learner had begun to decide."""
    settled = records[len(records) // 3 :]
    return sum(r.ttft_s > slo_s for r in settled) <= LATE_RATIO * len(settled)


def measured(
    traces: Path, fleet: str, workload: str, slo_s: float
) -> tuple[float, list[float | None]]:
    """The truth, and the estimate's error at every load; None where it cannot tell."""

    def at(rate_per_s: float) -> tuple[list[RequestRecord], CapacityWatch]:
        return run(traces, fleet, workload, slo_s, rate_per_s)

    truth = bisect_rate(lambda rate_per_s: is_kept(at(rate_per_s)[0], slo_s))
    found = [at(truth * load)[1].capacity() for load in LOADS]
    return truth, [None if each is None else each.capacity_per_s / truth - 1.0 for each in found]


def main() -> None:
    """Print one row for each cell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", type=Path, help="folder of the public traces")
    parser.add_argument("--quick", action="store_true", help="one fleet, one workload")
    options = parser.parse_args()
    fleets, workloads = (FLEETS[:1], WORKLOADS[:1]) if options.quick else (FLEETS, WORKLOADS)
    errors: list[list[float | None]] = []
    print("| fleet, workload, bound | truth |", *[f"at {load:.0%} |" for load in LOADS])
    print("|---|---|" + "---|" * len(LOADS))
    for fleet in fleets:
        for workload in workloads:
            for slo_s in SLOS_S:
                truth, row = measured(options.traces, fleet, workload, slo_s)
                errors.append(row)
                told = ["cannot tell" if error is None else f"{error:+.0%}" for error in row]
                name = f"{fleet}, {workload}, {slo_s:g} s"
                print(f"| {name} | {truth:.1f}/s |", *[f"{each} |" for each in told], flush=True)
    columns = [[abs(e) for e in column if e is not None] for column in zip(*errors, strict=True)]
    print("| median of the error | |", *[f"{statistics.median(c):.0%} |" for c in columns if c])


if __name__ == "__main__":
    main()
