"""What each predictor of TTFT costs the event loop: CPU time of a prediction and of a sample.

Rows come from a simulated run of the learned policy on 8 endpoints. Batch trainings are left out:
they have a process of their own.

    python benchmarks/predictor_cost.py
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.config.settings import PREDICTORS, PoolSettings
from lodestar_extproc.decision import Decision
from lodestar_extproc.evaluation.clairvoyant import Oracle
from lodestar_extproc.evaluation.contenders import parse_contender
from lodestar_extproc.evaluation.fleets import find_fleet
from lodestar_extproc.evaluation.workloads.catalog import find_workload
from lodestar_extproc.learning.background import TrainingInPlace
from lodestar_extproc.learning.sample import TrainingSample, training_sample
from lodestar_extproc.routing.assembly import new_predictor
from lodestar_extproc.routing.ended_request import EndedRequest, ObservedFirstToken
from lodestar_extproc.simulator.cluster import VirtualCluster
from lodestar_extproc.simulator.machine import new_machine

N_REQUESTS, N_TAUGHT, ROUNDS = 3000, 2000, 5


class Samples:
    """Every first token of a run, as a sample."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        self.samples: list[TrainingSample] = []

    def decided(self, decision: Decision) -> None:
        self.decisions.append(decision)

    def first_token(self, decision: Decision, first_token: ObservedFirstToken) -> None:
        served, ttft_s = first_token.served or decision.address, first_token.ttft_s
        sample = training_sample(decision, served, ttft_s, first_token.at_s)
        if sample is not None:
            self.samples.append(sample)

    def ended(self, request: EndedRequest) -> None:
        """Nothing more to see."""


class Trainer(Executor):
    """Trains at once; once stopped it takes trainings and does none: they are another process's."""

    stopped = False

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run *fn*, or never."""
        return Future() if self.stopped else TrainingInPlace().submit(fn, *args, **kwargs)


def recorded() -> Samples:
    """Rows of a busy fleet."""
    seen, oracle = Samples(), Oracle()
    machines = [new_machine(i, spec, i) for i, spec in enumerate(find_fleet("a30x8").specs)]
    router = parse_contender("learned").router(machines, oracle, 1, listeners=[seen])
    cluster = VirtualCluster(machines, [router], seed=1)
    oracle.watch(cluster)
    workload = find_workload("prefix50", traces=Path(), tokens_per_hash=None)
    cluster.run(workload.generate(15.0, 1, N_REQUESTS), N_REQUESTS)
    return seen


def cost_us(work: Callable[[Any], object], items: Sequence[Any]) -> float:
    """The least CPU time of one call, of some rounds over *items*."""
    best = float("inf")
    for _ in range(ROUNDS):
        began_s = time.process_time()
        for item in items:
            work(item)
        best = min(best, time.process_time() - began_s)
    return 1e6 * best / len(items)


def measure(name: str, seen: Samples) -> tuple[float, float]:
    """CPU time of a prediction and of a sample, µs."""
    trainer = Trainer()
    predictor = new_predictor(
        LiveSettings(PoolSettings(predictor=name)), random.Random(1), lambda: trainer
    )
    for sample in seen.samples[:N_TAUGHT]:
        predictor.learn(sample)
    trainer.stopped = True
    asked = [
        (d.candidates.features, d.candidates.snapshot.endpoints) for d in seen.decisions[-300:]
    ]
    return (
        cost_us(lambda each: predictor.predict(*each), asked),
        cost_us(predictor.learn, seen.samples[N_TAUGHT : N_TAUGHT + 300]),
    )


def main() -> None:
    """Print a row a predictor."""
    table = Table("predictor", box=None)
    for column in ("prediction, 8 endpoints, µs", "sample, µs"):
        table.add_column(column, justify="right")
    with threadpool_limits(1):
        seen = recorded()
        for name in PREDICTORS:
            prediction_us, sample_us = measure(name, seen)
            table.add_row(name, f"{prediction_us:.0f}", f"{sample_us:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
