"""run_bench(): a benchmark from its study to its tables, JSON and report."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

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
from lodestar_extproc.evaluation.contenders import old_names, parse_contender
from lodestar_extproc.evaluation.fleets import find_fleet
from lodestar_extproc.evaluation.kept import kept_outcomes
from lodestar_extproc.evaluation.report import write_report
from lodestar_extproc.evaluation.results import write_json
from lodestar_extproc.evaluation.router_counts import router_json, router_rows
from lodestar_extproc.evaluation.scenarios import find_scenario
from lodestar_extproc.evaluation.study import Study, run_all
from lodestar_extproc.evaluation.tables import cell_table, ratio_table, table
from lodestar_extproc.evaluation.trial import Trial, TrialResult
from lodestar_extproc.evaluation.workloads.catalog import find_workload
from lodestar_extproc.terminal import Terminal

_log = logging.getLogger(__name__)


def run_bench(
    study: Study,
    *,
    jobs: int | None = None,
    json: Path | None = None,
    report: Path | None = None,
    keep: Path | None = None,
) -> None:
    """Compare the contenders of *study* over all its cells.

    Args:
        jobs: processes; None for one a core.
        keep: where ended trials are kept, for a second run to go on from.
        json, report: where to write figures, and tables with plots.

    Raises:
        ValueError: a name that means nothing, or a trace that is not there.
    """
    console = Terminal(stderr=True)
    _check(study)
    began_s = time.perf_counter()
    trials = study.trials(console.print)
    outcomes = run_with_progress(trials, jobs or os.cpu_count() or 1, console, keep)
    elapsed_s = time.perf_counter() - began_s
    comparison = Comparison(outcomes)
    _show(comparison, Terminal())
    routers: Mapping[str, Any] = {}
    if any(find_scenario(name).n_routers > 1 for name in study.scenarios):
        routers = _show_routers(outcomes, Terminal())
    if json is not None:
        write_json(json, comparison, sys.argv[1:], elapsed_s, routers)
    if report is not None:
        write_report(report, comparison, sys.argv[1:], elapsed_s)
        console.print(f"report: {report / 'report.md'}")


def _show(comparison: Comparison, console: Console) -> None:
    console.print(cell_table(comparison))
    if comparison.subject is not None and len(comparison.contenders) > 1:
        console.print(ratio_table(comparison))


def _show_routers(outcomes: list[TrialResult], console: Console) -> Mapping[str, Any]:
    """What several routers cost, where one was run beside them; the same for JSON."""
    if not any(find_scenario(o.cell.scenario).n_routers == 1 for o in outcomes):
        return {}
    console.print(table("several routers over one", router_rows(outcomes)))
    return {"routers": router_json(outcomes)}


def _check(study: Study) -> None:
    """Refuse what cannot run before anything does."""
    for workload in study.workloads:
        find_workload(workload, traces=study.traces, tokens_per_hash=study.tokens_per_hash)
    for fleet in study.fleets:
        find_fleet(fleet)
    for contender in study.contenders:
        parse_contender(contender)
    warn_of_old_names(study.contenders)
    for scenario in study.scenarios:
        find_scenario(scenario)
    if not study.contenders:
        raise ValueError("name at least one policy")


def warn_of_old_names(contenders: Iterable[str]) -> None:
    """Say what each setting is called now that one of *contenders* calls by a name of before."""
    for contender in contenders:
        for old, new in old_names(contender).items():
            _log.warning("%s: %s is now called %s", contender, old, new)


def run_with_progress(
    trials: list[Trial], n_processes: int, console: Console, keep: Path | None = None
) -> list[TrialResult]:
    """What came of *trials*, in their order, while *console* shows how long it still takes."""
    kept = None if keep is None else kept_outcomes(keep)
    outcomes: list[TrialResult] = []
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("simulating", total=sum(t.n_requests for t in trials))
        for trial, ended in run_all(trials, n_processes, kept):
            outcomes += ended
            progress.update(task, advance=trial.n_requests, description=trial.cell.name)
    order = {trial.cell: number for number, trial in enumerate(trials)}
    return sorted(outcomes, key=lambda o: (order[o.cell], o.seed))
