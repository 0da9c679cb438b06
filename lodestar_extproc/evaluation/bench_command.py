"""The command `bench`: policies compared in virtual time, on the same arrivals."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from lodestar_extproc.evaluation.comparison import Comparison
from lodestar_extproc.evaluation.contenders import NoContender, parse_contender
from lodestar_extproc.evaluation.fleets import STANDARD_FLEETS, NoFleet, find_fleet
from lodestar_extproc.evaluation.report import write_report
from lodestar_extproc.evaluation.results import write_json
from lodestar_extproc.evaluation.scenarios import SCENARIOS
from lodestar_extproc.evaluation.study import Study, run_all
from lodestar_extproc.evaluation.tables import cell_table, ratio_table
from lodestar_extproc.evaluation.trial import Outcome, Trial
from lodestar_extproc.evaluation.workloads.catalog import WORKLOADS, NoWorkload, find_workload

DEFAULT_POLICIES = "prefix_cache,prefix_affinity_token_load,lmetric,least_load,learned"

Workloads = Annotated[
    str, typer.Option(help=f"{', '.join(WORKLOADS)}, all, or a file; several with commas.")
]
Fleets = Annotated[
    str, typer.Option(help=f"{', '.join(STANDARD_FLEETS)}, all, or a .yaml file; with commas.")
]
Loads = Annotated[
    str, typer.Option(help="Shares of the rate at which the fleet is saturated, with commas.")
]
Rate = Annotated[float | None, typer.Option(min=0.01, help="Requests a second, not --load.")]
Policies = Annotated[str, typer.Option(help="With commas; learned:model=mlp changes a setting.")]
Seeds = Annotated[int, typer.Option(min=1, help="Runs of each cell, on other arrivals.")]
FirstSeed = Annotated[int, typer.Option(min=0, help="The others follow it.")]
Requests = Annotated[
    int | None,
    typer.Option(min=100, help="Of each run.", show_default="400 s of them, 5000 to 14000"),
]
Scenarios = Annotated[str, typer.Option(help=f"{', '.join(SCENARIOS)}, or all; with commas.")]
Traces = Annotated[Path, typer.Option(help="Folder of the public traces.")]
TokensPerHash = Annotated[
    int | None, typer.Option(min=1, help="Tokens a hash id of a Mooncake trace stands for.")
]
WithHindsight = Annotated[
    bool, typer.Option(help="Compare learned decisions with a clairvoyant's: slower.")
]
Jobs = Annotated[int | None, typer.Option(min=1, help="Processes.", show_default="one a core")]
Json = Annotated[Path | None, typer.Option(help="Write all figures and ratios here.")]
Report = Annotated[Path | None, typer.Option(help="Write tables and plots into this folder.")]


def bench(  # noqa: PLR0913  (one argument an option)
    *,
    workload: Workloads = "prefix50",
    fleet: Fleets = "a30x8",
    load: Loads = "0.8",
    rate: Rate = None,
    policies: Policies = DEFAULT_POLICIES,
    seeds: Seeds = 3,
    first_seed: FirstSeed = 1,
    requests: Requests = None,
    scenario: Scenarios = "steady",
    traces: Traces = Path("traces"),
    tokens_per_hash: TokensPerHash = None,
    hindsight: WithHindsight = False,
    jobs: Jobs = None,
    json: Json = None,
    report: Report = None,
) -> None:
    """Compare policies on simulated fleets in virtual time, on the same arrivals.

    The policies and the learner are those of `serve`, told only what the edge of
    envoy/envoy.yaml tells them. The first learned policy is compared with every other one.

    Examples:

        lodestar-extproc bench

        lodestar-extproc bench --workload all --fleet all --load 0.6,0.8,0.92 --traces DIR

        lodestar-extproc bench --policies lmetric,learned,learned:objective=ttft --json out.json

        lodestar-extproc bench --scenario all --report report/

        lodestar-extproc bench --workload mine.jsonl --rate 12 --fleet mine.yaml
    """
    console = Console(stderr=True)
    study = Study(
        workloads=_names(workload, WORKLOADS),
        fleets=_names(fleet, STANDARD_FLEETS),
        scenarios=_names(scenario, tuple(SCENARIOS)),
        contenders=_names(policies, ()),
        seeds=tuple(range(first_seed, first_seed + seeds)),
        traces=traces,
        loads=_loads(load),
        rate_per_s=rate,
        n_requests=requests,
        tokens_per_hash=tokens_per_hash,
        hindsight=hindsight,
    )
    _check(study)
    began_s = time.perf_counter()
    outcomes = _run(study.trials(console.print), jobs or os.cpu_count() or 1, console)
    elapsed_s = time.perf_counter() - began_s
    comparison = Comparison(outcomes)
    _show(comparison, Console())
    if json is not None:
        write_json(json, comparison, sys.argv[1:], elapsed_s)
    if report is not None:
        write_report(report, comparison, sys.argv[1:], elapsed_s)
        console.print(f"report: {report / 'report.md'}")


def _show(comparison: Comparison, console: Console) -> None:
    console.print(cell_table(comparison))
    if comparison.subject is not None and len(comparison.contenders) > 1:
        console.print(ratio_table(comparison))


def _names(text: str, everything: tuple[str, ...]) -> tuple[str, ...]:
    if text == "all" and everything:
        return everything
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _loads(text: str) -> tuple[float, ...]:
    try:
        loads = tuple(float(part) for part in text.split(","))
    except ValueError:
        loads = ()
    if not loads or not all(0 < x < 2 for x in loads):
        raise typer.BadParameter(f"{text!r}: wants shares like 0.6,0.8", param_hint="--load")
    return loads


def _check(study: Study) -> None:
    """Refuse what cannot run before anything does."""
    try:
        for workload in study.workloads:
            find_workload(workload, traces=study.traces, tokens_per_hash=study.tokens_per_hash)
        for fleet in study.fleets:
            find_fleet(fleet)
        for contender in study.contenders:
            parse_contender(contender)
    except (NoWorkload, NoFleet, NoContender) as error:
        raise typer.BadParameter(str(error)) from None
    unknown = [s for s in study.scenarios if s not in SCENARIOS]
    if unknown or not study.contenders:
        raise typer.BadParameter(
            f"no scenario {unknown[0]!r}; there are {', '.join(SCENARIOS)}"
            if unknown
            else "name at least one policy"
        )


def _run(trials: list[Trial], n_processes: int, console: Console) -> list[Outcome]:
    outcomes: list[Outcome] = []
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("simulating", total=sum(t.n_requests for t in trials))
        for trial, ended in run_all(trials, min(n_processes, len(trials))):
            outcomes += ended
            progress.update(task, advance=trial.n_requests, description=trial.cell.name)
    order = {trial.cell: number for number, trial in enumerate(trials)}
    return sorted(outcomes, key=lambda o: (order[o.cell], o.seed))
