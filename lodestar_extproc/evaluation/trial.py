"""Trial: one workload on one fleet with one seed, run by each policy on the same arrivals."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from threadpoolctl import threadpool_limits

from lodestar_extproc.evaluation.clairvoyant import Hindsight, Oracle
from lodestar_extproc.evaluation.contenders import Contender, parse_contender
from lodestar_extproc.evaluation.figures import Figures, Quality, measure
from lodestar_extproc.evaluation.fleets import find_fleet
from lodestar_extproc.evaluation.scenarios import Scenario, find_scenario
from lodestar_extproc.evaluation.workloads.catalog import find_workload
from lodestar_extproc.evaluation.workloads.sequel import Part, Sequel
from lodestar_extproc.routing.router import Router
from lodestar_extproc.simulator.arrival import Workload
from lodestar_extproc.simulator.cluster import VirtualCluster
from lodestar_extproc.simulator.machine import Machine, new_machine
from lodestar_extproc.simulator.record import RequestRecord


@dataclass(frozen=True, slots=True)
class Cell:
    """Where policies are compared; all but the rates is by name.

    Attributes:
        load: share of the measured saturation; None where a rate was asked for.
        rates_per_s: of each of the scenario's workloads.
    """

    workload: str
    fleet: str
    scenario: str
    load: float | None
    rates_per_s: tuple[float, ...]

    @property
    def name(self) -> str:
        """For people."""
        load = f"{self.rates_per_s[0]:.3g}/s" if self.load is None else f"{self.load:g}"
        scenario = "" if self.scenario == "steady" else f" {self.scenario}"
        return f"{self.fleet} {self.workload} {load}{scenario}"


@dataclass(frozen=True, slots=True)
class Trial:
    """One cell with one seed.

    Attributes:
        traces: folder of the public traces.
        hindsight: whether decisions of learned policies are compared with the clairvoyant's.
    """

    cell: Cell
    seed: int
    n_requests: int
    contenders: tuple[str, ...]
    traces: Path
    tokens_per_hash: int | None = None
    hindsight: bool = False

    @property
    def scenario(self) -> Scenario:
        """The cell's."""
        return find_scenario(self.cell.scenario)

    @property
    def run_s(self) -> float:
        """Seconds of arrivals, about."""
        rates = self.cell.rates_per_s
        return sum(self.n_requests / len(rates) / rate for rate in rates)


@dataclass(frozen=True, slots=True)
class TrialResult:
    """What one policy achieved in one trial."""

    cell: Cell
    seed: int
    contender: str
    figures: Figures


def run_trial(trial: Trial) -> Iterator[TrialResult]:
    """Every contender on the same arrivals, one after the other."""
    workload = generate(trial)
    for text in trial.contenders:
        figures = run_contender(trial, parse_contender(text), workload)
        yield TrialResult(trial.cell, trial.seed, text, figures)


def run_contender(trial: Trial, contender: Contender, workload: Workload) -> Figures:
    """One policy from nothing."""
    with _undisturbed():
        return _figures(trial, contender, workload)


def _figures(trial: Trial, contender: Contender, workload: Workload) -> Figures:
    world = _World(trial, contender)
    began_s = time.process_time()
    records = world.cluster.run(workload, trial.n_requests)
    cpu_s = time.process_time() - began_s
    return measure(records, trial.scenario.measured_from, world.quality(cpu_s))


def simulate(trial: Trial, contender: Contender, workload: Workload) -> list[RequestRecord]:
    """Every request of one policy's run."""
    with _undisturbed():
        return _World(trial, contender).cluster.run(workload, trial.n_requests)


def generate(trial: Trial) -> Workload:
    """The arrivals of *trial*, always the same."""
    rates, parts = trial.cell.rates_per_s, []
    n_requests = -(-trial.n_requests // len(rates))
    for name, rate_per_s in zip(trial.scenario.workloads, rates, strict=True):
        source = find_workload(
            name or trial.cell.workload,
            traces=trial.traces,
            tokens_per_hash=None if name else trial.tokens_per_hash,
        )
        workload = source.generate(rate_per_s, trial.seed, n_requests)
        parts.append(Part(workload, n_requests / rate_per_s))
    return parts[0].workload if len(parts) == 1 else Sequel(parts)


class _World:
    """Machines, routers and what watches them."""

    def __init__(self, trial: Trial, contender: Contender) -> None:
        scenario, self._contender = trial.scenario, contender
        self._oracle = Oracle()
        self._hindsight = Hindsight(self._oracle)
        watches = trial.hindsight and contender.learns
        machines = _machines(trial)
        frames = scenario.frames
        pools = [] if frames is None else frames.pools(scenario.n_routers)
        self._routers = [
            contender.router(
                machines,
                self._oracle,
                trial.seed + number,
                index_ratio=scenario.index_ratio,
                listeners=[
                    *([self._hindsight] if watches else ()),
                    *(pool.outbox for pool in pools[number : number + 1]),
                ],
            )
            for number in range(scenario.n_routers)
        ]
        self.cluster = VirtualCluster(
            machines, self._routers, signals=scenario.signals, seed=trial.seed
        )
        self._oracle.watch(self.cluster)
        if frames is not None:
            frames.plan(self.cluster, self._routers, pools, trial.seed, trial.run_s)
        for incident in scenario.incidents:
            incident.plan(self.cluster, trial.run_s)

    def quality(self, cpu_s: float) -> Quality:
        """What the records do not tell."""
        seen = self._hindsight
        learner: Router = self._routers[0]
        return Quality(
            ttft_slo_s=self._contender.settings.ttft_slo_s,
            coverage_ratio=learner.learner.status().coverage_ratio
            if self._contender.learns
            else None,
            agreement_ratio=seen.n_agreed / seen.n_decisions if seen.n_decisions else None,
            regret_s=seen.regret_s / seen.n_decisions if seen.n_decisions else None,
            learns=self._contender.learns,
            cpu_s=cpu_s,
        )


def _machines(trial: Trial) -> list[Machine]:
    specs = find_fleet(trial.cell.fleet).specs
    jitter_cv = trial.scenario.jitter_cv
    if jitter_cv is not None:
        specs = tuple(replace(spec, jitter_cv=jitter_cv) for spec in specs)
    return [new_machine(i, spec, trial.seed * 1000 + i) for i, spec in enumerate(specs)]


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No collection of what is not garbage, and no threads beside this one.

    What a run leaves is looked for in what the run made, not in all that the process holds.
    """
    gc.freeze()
    gc.disable()
    try:
        with threadpool_limits(1):
            yield
    finally:
        gc.enable()
        gc.collect()
        gc.unfreeze()
