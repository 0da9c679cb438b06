"""Puts the results of several cards into one folder: summary.json, requests.csv.gz, and of the
decisions those whose TTFT was predicted, in predictions.csv.gz.

Example:

    python benchmarks/gpu/gather.py run/*/results --into benchmarks/gpu/results/agents
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from pathlib import Path
from typing import Any

TIMES = ("ttft_s", "e2e_s", "at_s", "age_s", "predicted_ttft_s")
TIME_DECIMALS = 4
"""Of a second: nothing here is known better."""
PREDICTION = (
    *("fleet", "workload", "rate_per_s", "policy", "round", "repeat", "age_s", "reason"),
    *("served", "prompt_tokens", "matched_tokens", "predicted_ttft_s", "ttft_s"),
)
"""What is kept of a decision."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, nargs="+", help="folders that runs have written")
    parser.add_argument("--into", type=Path, required=True, help="folder to write to")
    asked = parser.parse_args()
    asked.into.mkdir(parents=True, exist_ok=True)
    gather(asked.results, asked.into)


def gather(folders: list[Path], into: Path) -> None:
    """Write what *folders* hold, each cell once, to *into*."""
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in folders]
    about = summaries[0]["about"] | {
        "runs": {
            folder.parent.name: each["about"]
            for folder, each in zip(folders, summaries, strict=True)
        }
    }
    cells = [cell for each in summaries for cell in each["cells"]]
    (into / "summary.json").write_text(
        json.dumps({"about": about, "cells": cells}, indent=1) + "\n"
    )
    _requests(folders, into)
    if all((folder / "decisions.csv.gz").exists() for folder in folders):
        _predictions(folders, into)


def _requests(folders: list[Path], into: Path) -> None:
    names: list[str] = []
    with gzip.open(into / "requests.csv.gz", "wt", newline="") as out:
        writer = csv.writer(out)
        for folder in folders:
            with gzip.open(folder / "requests.csv.gz", "rt", newline="") as file:
                reader = csv.DictReader(file)
                if not names:
                    names = list(reader.fieldnames or ())
                    writer.writerow(names)
                writer.writerows([_shortened(row, name) for name in names] for row in reader)


def _predictions(folders: list[Path], into: Path) -> None:
    with gzip.open(into / "predictions.csv.gz", "wt", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(PREDICTION)
        for folder in folders:
            with gzip.open(folder / "decisions.csv.gz", "rt", newline="") as file:
                for row in csv.DictReader(file):
                    if row["predicted_ttft_s"] and row["ttft_s"]:
                        writer.writerow([_shortened(row, name) for name in PREDICTION])


def _shortened(row: dict[str, Any], name: str) -> str:
    value = str(row[name])
    return f"{float(value):.{TIME_DECIMALS}f}" if name in TIMES and value else value


if __name__ == "__main__":
    main()
