"""Study: which trials a benchmark consists of, and running them on all cores."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from lodestar_extproc.evaluation.kept import KeptOutcomes
from lodestar_extproc.evaluation.saturation import known_saturation, requests_at, saturation
from lodestar_extproc.evaluation.scenarios import find_scenario
from lodestar_extproc.evaluation.trial import Cell, Trial, TrialResult, run_trial


@dataclass(frozen=True, slots=True)
class Study:
    """What is to be compared.

    Attributes:
        loads: shares of saturation; empty takes each scenario's own.
        rate_per_s: instead of loads; None for loads.
        n_requests: of each run; None takes what the rate asks for.
    """

    workloads: tuple[str, ...]
    fleets: tuple[str, ...]
    scenarios: tuple[str, ...]
    contenders: tuple[str, ...]
    seeds: tuple[int, ...]
    traces: Path
    loads: tuple[float, ...] = ()
    rate_per_s: float | None = None
    n_requests: int | None = None
    tokens_per_hash: int | None = None
    hindsight: bool = False

    def trials(self, note: Callable[[str], object]) -> list[Trial]:
        """Every cell with every seed, the longest first; *note* hears what takes long."""
        cells = self.cells(note)
        trials = [self._trial(cell, seed) for cell in cells for seed in self.seeds]
        return sorted(trials, key=lambda t: -t.n_requests)

    def cells(self, note: Callable[[str], object]) -> list[Cell]:
        """Every combination."""
        return [
            self._cell(workload, fleet, scenario, load, note)
            for scenario in self.scenarios
            for fleet in self.fleets
            for workload in self.workloads
            for load in self._loads(scenario)
        ]

    def _loads(self, scenario: str) -> Sequence[float | None]:
        if self.rate_per_s is not None:
            return (None,)
        return self.loads or (find_scenario(scenario).load,)

    def _cell(
        self,
        workload: str,
        fleet: str,
        scenario: str,
        load: float | None,
        note: Callable[[str], object],
    ) -> Cell:
        rates = tuple(
            self._rate(name or workload, fleet, load, note, own=not name)
            for name in find_scenario(scenario).workloads
        )
        return Cell(workload, fleet, scenario, load, rates)

    def _rate(
        self,
        workload: str,
        fleet: str,
        load: float | None,
        note: Callable[[str], object],
        *,
        own: bool,
    ) -> float:
        if load is None:
            assert self.rate_per_s is not None
            return self.rate_per_s
        known = known_saturation().get(fleet, {}).get(workload)
        if known is None or (own and self.tokens_per_hash is not None):
            note(f"measuring the saturation of {fleet} by {workload}")
            known = saturation(workload, fleet, self.traces, self.tokens_per_hash)
        return load * known

    def _trial(self, cell: Cell, seed: int) -> Trial:
        n_requests = self.n_requests or requests_at(cell.rates_per_s[0])
        return Trial(
            cell,
            seed,
            n_requests,
            self.contenders,
            self.traces,
            self.tokens_per_hash,
            self.hindsight,
        )


def run_all(
    trials: Sequence[Trial], n_processes: int, kept: KeptOutcomes | None = None
) -> Iterator[tuple[Trial, list[TrialResult]]]:
    """Outcomes as trials end, in any order; those that were *kept* first, and new ones kept."""
    missing = []
    for trial in trials:
        found = None if kept is None else kept.find(trial)
        if found is None:
            missing.append(trial)
        else:
            yield trial, found
    for trial, outcomes in _run(missing, min(n_processes, len(missing))):
        if kept is not None:
            kept.keep(trial, outcomes)
        yield trial, outcomes


def _run(trials: Sequence[Trial], n_processes: int) -> Iterator[tuple[Trial, list[TrialResult]]]:
    """One process stays in this one."""
    if n_processes <= 1:
        for trial in trials:
            yield trial, list(run_trial(trial))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(n_processes, mp_context=context) as pool:
        running = {pool.submit(outcomes_of, trial): trial for trial in trials}
        try:
            yield from _as_they_end(running)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _as_they_end(
    running: dict[Future[list[TrialResult]], Trial],
) -> Iterator[tuple[Trial, list[TrialResult]]]:
    while running:
        ended, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in ended:
            yield running.pop(future), future.result()


def outcomes_of(trial: Trial) -> list[TrialResult]:
    """What a process is asked to do."""
    return list(run_trial(trial))
