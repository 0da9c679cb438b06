"""How much of a saturation rate is chance: whether queues grow at given rates, seed by seed.

The shipped table is one bisection on the arrivals of one seed. The rates to look at are its own and
those that a study of other engines of the same coefficients found, one bisection on one seed too.

Example:

    python benchmarks/saturation_seeds.py TRACES --seeds 8 --fleets a30x8
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from types import MappingProxyType

from lodestar_extproc.evaluation.saturation import SEED, is_stable, known_saturation

STUDY: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "a30x8": {"prefix30": 13.2, "prefix50": 15.3, "bursty": 18.4, "conversation": 22.8},
        "a30x4+v100x4": {"prefix30": 10.6, "prefix50": 11.3, "bursty": 12.7, "conversation": 19.2},
    }
)
"""Requests a second, by fleet and workload."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("traces", type=Path, help="folder of the public traces")
    parser.add_argument("--seeds", type=int, default=8, help="beside the shipped table's own")
    parser.add_argument("--fleets", type=lambda text: text.split(","), default=list(STUDY))
    parser.add_argument("--jobs", type=int, help="processes (default: one a core)")
    asked = parser.parse_args()
    seeds = (SEED, *range(1, asked.seeds + 1))
    print("| fleet | workload | requests/s | of ours | stable seeds | at the table's seed |")
    print("|---|---|---|---|---|---|")
    with ProcessPoolExecutor(asked.jobs) as pool:
        for fleet, workload, rate_per_s, ours in rates(asked.fleets):
            same = (repeat(workload), repeat(fleet), repeat(asked.traces), repeat(rate_per_s))
            said = list(pool.map(is_stable, *same, seeds))
            print(
                f"| {fleet} | {workload} | {rate_per_s:.1f} | {rate_per_s / ours:.2f} "
                f"| {sum(said[1:])} of {len(said) - 1} | {'stable' if said[0] else 'grows'} |",
                flush=True,
            )


def rates(fleets: list[str]) -> Iterator[tuple[str, str, float, float]]:
    """Fleet, workload, a rate to look at, and our table's: the study's, ours and between them."""
    table = known_saturation()
    for fleet in fleets:
        for workload, theirs in STUDY[fleet].items():
            ours = table[fleet][workload]
            for rate_per_s in (theirs, math.sqrt(theirs * ours), ours):
                yield fleet, workload, rate_per_s, ours


if __name__ == "__main__":
    main()
