"""Puts the results of several cards into one folder: summary.json and requests.csv.gz.

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

TIMES = ("ttft_s", "e2e_s", "at_s")
TIME_DECIMALS = 4
"""Of a second: nothing here is known better."""


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


def _shortened(row: dict[str, Any], name: str) -> str:
    value = str(row[name])
    return f"{float(value):.{TIME_DECIMALS}f}" if name in TIMES and value else value


if __name__ == "__main__":
    main()
