"""What it costs that several routers share what they see, over one: docs/results/replicas.md.

    make bench-replicas                              nine cells, five seeds: hours on two cores
    make bench-replicas ARGS="--quick --json FILE"   six cells, one seed, short runs: ten minutes

In virtual time: the routers are those of `serve`, and their frames are the bytes that go through a
store, one millisecond late. Ended trials are kept in --folder, so a second run goes on from them.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from lodestar_extproc.evaluation.bench import run_with_progress
from lodestar_extproc.evaluation.bench_names import STANDARD_FLEETS
from lodestar_extproc.evaluation.comparison import Comparison
from lodestar_extproc.evaluation.frames import Trouble
from lodestar_extproc.evaluation.results import write_json
from lodestar_extproc.evaluation.router_counts import (
    router_json,
    router_rows,
    router_scenarios,
)
from lodestar_extproc.evaluation.study import Study
from lodestar_extproc.evaluation.tables import cell_rows, markdown, table
from lodestar_extproc.evaluation.trial import TrialResult

COUNTS = (1, 2, 4, 8)
FRAME_MS = 30
LOAD = 0.8  # where staleness costs: below it there is room everywhere, above it queues rule
WORKLOADS = ("prefix30", "prefix50", "agentic")
QUICK_WORKLOADS = WORKLOADS[:2]
N_REQUESTS, N_QUICK_REQUESTS = 3000, 1500  # of each run: hundreds of seconds at these rates


def main() -> None:
    """Run, print, and write what was asked for."""
    options = _options()
    console = Console(stderr=True)
    began_s = time.perf_counter()
    frame_ms = None if options.share == "off" else int(options.share.removesuffix("ms"))
    study = Study(
        workloads=tuple(options.workload.split(","))
        if options.workload
        else (QUICK_WORKLOADS if options.quick else WORKLOADS),
        fleets=STANDARD_FLEETS,
        scenarios=router_scenarios(COUNTS, frame_ms, options.loss, options.trouble),
        contenders=("learned",),
        seeds=tuple(range(1, 1 + (options.seeds or (1 if options.quick else 5)))),
        traces=options.traces,
        loads=(LOAD,),
        n_requests=N_QUICK_REQUESTS if options.quick else N_REQUESTS,
    )
    trials = study.trials(console.print)
    outcomes = run_with_progress(trials, options.jobs, console, options.folder)
    elapsed_s = time.perf_counter() - began_s
    Console().print(table(f"several routers over one, {options.share}", router_rows(outcomes)))
    if options.json is not None:
        beside = {"routers": router_json(outcomes)}
        write_json(options.json, Comparison(outcomes), sys.argv[1:], elapsed_s, beside)
    if options.table is not None:
        options.table.write_text(_tables(outcomes))


def _tables(outcomes: Sequence[TrialResult]) -> str:
    return markdown(router_rows(outcomes)) + "\n" + markdown(cell_rows(Comparison(outcomes)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer cells, one seed, short runs")
    parser.add_argument("--share", default=f"{FRAME_MS}ms", help="a frame's length, or off")
    parser.add_argument("--loss", type=float, default=0.0, help="share of the frames that is lost")
    parser.add_argument(
        "--trouble", type=Trouble, default=Trouble.NONE, help="of the first router: parted, dies"
    )
    parser.add_argument("--workload", help="instead of those of the study, with commas")
    parser.add_argument("--seeds", type=int, help="of each cell")
    parser.add_argument("--traces", type=Path, default=Path("traces"), help="of public traces")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--json", type=Path, help="write routers.<n>.{ttft_mean,ttft_p99} here")
    parser.add_argument("--table", type=Path, help="write tables in Markdown here")
    parser.add_argument("--folder", type=Path, help="keep ended trials here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
