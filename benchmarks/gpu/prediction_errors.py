"""TTFT as predicted beside TTFT as measured, of the endpoint that was chosen, by what was cached.

Reads the predictions.csv.gz of a folder that `gather.py` has written. Left out are the first
seconds of each run, in which the model has seen next to nothing.

Example:

    python benchmarks/gpu/prediction_errors.py benchmarks/gpu/results/pair
"""

from __future__ import annotations

import argparse
import csv
import gzip
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "vllm"))

from cells import SESSIONS_WARM_UP_S

UNCACHED_TOKENS = (300.0, 1500.0)
"""Parts what has next to all of its prompt cached from what has much to compute."""
Load: TypeAlias = tuple[str, str, float, int]
"""Fleet, workload, requests/s, and how many of UNCACHED_TOKENS there were to compute at least."""


@dataclass(frozen=True)
class Error:
    """Of many requests; times in seconds.

    Attributes:
        median_ratio: half of the requests took so many times what was predicted, or less, or one
            over it, or more.
        correlation: of predicted and measured.
    """

    requests: int
    predicted_s: float
    measured_s: float
    predicted_p90_s: float
    measured_p90_s: float
    median_ratio: float
    correlation: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    for line in table(read(parser.parse_args().folder)):
        print(line)


def read(folder: Path) -> dict[Load, Error]:
    """What *folder* tells, load by load."""
    pairs: dict[Load, list[tuple[float, float]]] = defaultdict(list)
    with gzip.open(folder / "predictions.csv.gz", "rt", newline="") as file:
        for row in csv.DictReader(file):
            if float(row["age_s"]) >= SESSIONS_WARM_UP_S:
                uncached = float(row["prompt_tokens"]) - float(row["matched_tokens"])
                load = row["fleet"], row["workload"], float(row["rate_per_s"]), part_of(uncached)
                pairs[load].append((float(row["predicted_ttft_s"]), float(row["ttft_s"])))
    return {load: error_of(np.array(each)) for load, each in sorted(pairs.items())}


def part_of(uncached_tokens: float) -> int:
    """How many of UNCACHED_TOKENS it reaches."""
    return sum(uncached_tokens >= most for most in UNCACHED_TOKENS)


def in_words(part: int) -> str:
    """What `part_of` says.

    >>> in_words(part_of(20)), in_words(part_of(900)), in_words(part_of(4000))
    ('under 300', '300 to 1500', 'over 1500')
    """
    few, many = UNCACHED_TOKENS
    return (f"under {few:.0f}", f"{few:.0f} to {many:.0f}", f"over {many:.0f}")[part]


def error_of(pairs: np.ndarray) -> Error:
    """Of predicted and measured times, [n, 2]."""
    predicted, measured = pairs.T
    return Error(
        len(pairs),
        float(predicted.mean()),
        float(measured.mean()),
        float(np.percentile(predicted, 90)),
        float(np.percentile(measured, 90)),
        float(np.exp(np.median(np.abs(np.log(predicted / measured))))),
        float(np.corrcoef(predicted, measured)[0, 1]),
    )


def table(errors: Mapping[Load, Error]) -> Iterator[str]:
    yield (
        "| load | uncached tokens | requests | mean, predicted / measured, ms | P90 "
        "| off by, median | correlation |"
    )
    yield "|---|---|---|---|---|---|---|"
    for (fleet, workload, rate_per_s, part), e in errors.items():
        yield (
            f"| {fleet}, {workload}, {rate_per_s:g} | {in_words(part)} | {e.requests} "
            f"| {1e3 * e.predicted_s:.0f} / {1e3 * e.measured_s:.0f} "
            f"| {1e3 * e.predicted_p90_s:.0f} / {1e3 * e.measured_p90_s:.0f} "
            f"| {100 * (e.median_ratio - 1):.0f} % | {e.correlation:.2f} |"
        )


if __name__ == "__main__":
    main()
