"""The learning benchmark: every table and picture that docs/ has of simulated fleets.

    make bench-learning ARGS="--traces DIR"          everything, about 80 minutes on two cores
    make bench-learning ARGS="--traces DIR --quick"  a taste of it, under ten minutes
    make bench-agents ARGS="--json FILE"             the agents' cells alone, about 30 minutes
    make bench-agents ARGS="--quick --json FILE"     a taste of these, under five minutes

Ended trials are kept in --folder, so a second run goes on where the first was stopped.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import agent_tables
import learning_tables as tables
from rich.console import Console

from lodestar_extproc.evaluation.bench import run_with_progress
from lodestar_extproc.evaluation.bench_names import AGENT_CELLS, SCENARIO_NAMES, STANDARD_FLEETS
from lodestar_extproc.evaluation.comparison import Comparison
from lodestar_extproc.evaluation.plots import draw_all
from lodestar_extproc.evaluation.results import write_json, write_parts
from lodestar_extproc.evaluation.study import Study
from lodestar_extproc.policies.heuristics import HEURISTICS

DOCS = Path(__file__).parents[1] / "docs"
FIXED_RULES = (
    "prefix_cache",
    "prefix_affinity_token_load",
    "lmetric",
    "least_load",
)
VARIANTS = (
    "learned",
    "learned:objective=ttft",
    "learned:externality_weight=2+decode_weight=0+eviction_weight=0+memory_weight_s=0",
    "learned:model=bayesian_linear",
    "learned:model=residual",
    "learned:model=auto",
    "lodestar_paper",
    "learned@every_token",
    "clairvoyant",
    "clairvoyant_ttft",
    "prefix_affinity_token_load",
    "least_request",
    "cache_aware",
    "cache_cost",
)
ROBUST = ("prefix_cache", "prefix_affinity_token_load", "lmetric", "learned")
OPEN_LOOP = ("conversation", "synthetic", "prefix30", "prefix50", "bursty")
LOADS = (0.6, 0.8, 0.92)


@dataclass(frozen=True, slots=True)
class Part:
    """What is run and shown together.

    Attributes:
        tables: the text of each section of the page.
        draws: whether it has pictures.
        page: in docs/.
    """

    name: str
    studies: tuple[Study, ...]
    tables: dict[str, Callable[[Comparison], str]]
    draws: bool = False
    page: str = "benchmarks.md"


def parts(traces: Path, *, quick: bool) -> list[Part]:
    """All of it, or a taste."""
    of_steady = {
        "steady": tables.steady,
        "every cell": tables.every_cell,
        "start": tables.start,
    }
    return [
        Part("steady", steady(traces, quick=quick), of_steady, draws=True),
        Part("variants", variants(traces, quick=quick), {"variants": tables.quality}),
        Part("scenarios", scenarios(traces, quick=quick), {"scenarios": tables.scenarios}),
        Part(
            "agents",
            agents(traces, quick=quick),
            {"agents": agent_tables.ratios, "agent cells": agent_tables.every_cell},
            page="results/agents.md",
        ),
        Part(
            "agents_bound",
            agents_bound(traces, quick=quick),
            {"agents bound": agent_tables.bound},
            page="results/agents.md",
        ),
    ]


def steady(traces: Path, *, quick: bool) -> tuple[Study, ...]:
    """Learned beside fixed rules where nothing goes wrong."""
    plain = Study((), STANDARD_FLEETS, ("steady",), (*FIXED_RULES, "learned"), (1,), traces)
    if quick:
        few = replace(plain, fleets=STANDARD_FLEETS[:2], loads=(0.8,), n_requests=2_000)
        return (replace(few, workloads=("prefix50", "bursty")),)
    whole = replace(plain, seeds=(1, 2, 3, 4, 5), loads=LOADS, n_requests=5_000)
    return (
        replace(whole, workloads=OPEN_LOOP),
        replace(whole, workloads=("agentic",), fleets=STANDARD_FLEETS[:2], loads=LOADS[1:]),
    )


def variants(traces: Path, *, quick: bool) -> tuple[Study, ...]:
    """Models, objectives and clairvoyants."""
    return (
        Study(
            workloads=("prefix50",) if quick else ("conversation", "prefix50", "bursty"),
            fleets=STANDARD_FLEETS,
            scenarios=("steady",),
            contenders=VARIANTS,
            seeds=(1,) if quick else (1, 2),
            traces=traces,
            loads=(0.85,),
            n_requests=1_500 if quick else 3_000,
            hindsight=True,
        ),
    )


def scenarios(traces: Path, *, quick: bool) -> tuple[Study, ...]:
    """Learned beside fixed rules where something goes wrong, each at its own load."""
    equal = Study(
        workloads=("prefix50",),
        fleets=STANDARD_FLEETS[:1],
        scenarios=("slow", "join", "noise") if quick else SCENARIO_NAMES,
        contenders=ROBUST,
        seeds=(1,) if quick else (1, 2, 3),
        traces=traces,
        n_requests=1_500 if quick else 3_000,
    )
    if quick:
        return (equal,)
    return replace(equal, fleets=STANDARD_FLEETS[:2]), replace(equal, workloads=("conversation",))


def agents(traces: Path, *, quick: bool) -> tuple[Study, ...]:
    """Learned beside every fixed rule there is, where sessions are long and caches small."""
    return tuple(
        Study(
            workloads=(workload,),
            fleets=tuple(fleet for name, fleet in AGENT_CELLS if name == workload),
            scenarios=("steady",),
            contenders=("learned", *HEURISTICS),
            seeds=(1,) if quick else (1, 2, 3, 4, 5),
            traces=traces,
            loads=LOADS,
            n_requests=3_000 if quick else 8_000,
        )
        for workload in dict.fromkeys(name for name, _ in AGENT_CELLS)
    )


def agents_bound(traces: Path, *, quick: bool) -> tuple[Study, ...]:
    """The same beside those who know what each engine's cache holds."""
    return tuple(
        replace(
            study,
            contenders=("learned", "clairvoyant", "clairvoyant_ttft"),
            seeds=study.seeds[:2],
            loads=(0.8,),
            n_requests=1_000 if quick else 5_000,
        )
        for study in agents(traces, quick=quick)
    )


def run(part: Part, folder: Path, jobs: int, console: Console) -> Comparison:
    """All trials of *part*; its figures go into *folder*, too."""
    began_s = time.perf_counter()
    trials = [t for study in part.studies for t in study.trials(console.print)]
    outcomes = run_with_progress(trials, jobs, console, folder / "trials")
    comparison = Comparison(outcomes)
    elapsed_s = time.perf_counter() - began_s
    write_json(folder / f"{part.name}.json", comparison, [f"part {part.name}"], elapsed_s)
    n_requests = sum(t.n_requests * len(t.contenders) for t in trials)
    console.print(
        f"{part.name}: {len(comparison.cells)} cells, {len(comparison.seeds)} seeds, "
        f"{n_requests:,} requests, {elapsed_s / 60:.1f} minutes"
    )
    return comparison


def write(part: Part, comparison: Comparison, page: Path, pictures: Path) -> None:
    """Its tables into *page* and its pictures into *pictures*."""
    sections = {name: table(comparison) for name, table in part.tables.items()}
    page.write_text(tables.replaced(page.read_text(), sections))
    if part.draws:
        pictures.mkdir(parents=True, exist_ok=True)
        list(draw_all(pictures, comparison))


def main() -> None:
    """Run what was asked for and write it down."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--traces", type=Path, default=Path("traces"), help="public traces")
    parser.add_argument("--folder", type=Path, default=Path("out/learning"), help="what is kept")
    parser.add_argument("--quick", action="store_true", help="few cells, nothing in docs/")
    parser.add_argument(
        "--part",
        action="append",
        help="steady, variants, scenarios, agents or agents_bound; all",
    )
    parser.add_argument("--json", type=Path, help="all figures and ratios, as `bench` writes them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args()
    console = Console()
    folder = options.folder / "quick" if options.quick else options.folder
    folder.mkdir(parents=True, exist_ok=True)
    console.print(f"Python {platform.python_version()}, {options.jobs} processes")
    began_s, comparisons = time.perf_counter(), {}
    for part in parts(options.traces, quick=options.quick):
        if not options.part or part.name in options.part:
            page = page_of(part, folder if options.quick else DOCS)
            comparisons[part.name] = run(part, folder, options.jobs, console)
            write(part, comparisons[part.name], page, page.parent / "pictures")
            console.print(f"written: {page}")
    if options.json is not None:
        write_parts(options.json, comparisons, sys.argv[1:], time.perf_counter() - began_s)


def page_of(part: Part, docs: Path) -> Path:
    """The page in *docs* that *part* writes to; a copy, where that is not the project's own."""
    page = docs / part.page
    if not page.is_file():
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text((DOCS / part.page).read_text())
    return page


if __name__ == "__main__":
    main()
