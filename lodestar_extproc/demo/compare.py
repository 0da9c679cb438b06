"""compare(): every policy on the same arrivals, one after another, each from cold."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from lodestar_extproc.demo.bootstrap import bootstrap
from lodestar_extproc.demo.processes import DemoError
from lodestar_extproc.demo.stack import Configure, FleetPlan, Stack, running_stack
from lodestar_extproc.demo.watch import Watch
from lodestar_extproc.evaluation.chats import ChatMix, Chats
from lodestar_extproc.evaluation.load import LoadClient, LoadRecord
from lodestar_extproc.evaluation.summary import Summary, summarise

MODEL = "llama-3.1-8b"
REFRESH_S = 0.5  # of the table on the screen


@dataclass(frozen=True)
class DemoPlan:
    """What to compare on what.

    Attributes:
        duration_s: of the arrivals, for each policy.
        port: of Envoy's listener; 0 for any.
        configure: makes Envoy's configuration.
    """

    policies: tuple[str, ...]
    fleet: FleetPlan
    duration_s: float
    rate_per_s: float
    seed: int
    folder: Path
    port: int = 0
    configure: Configure = bootstrap

    @property
    def chats(self) -> Chats:
        """The load, the same at every call."""
        return Chats(ChatMix(rate_per_s=self.rate_per_s), self.seed, self.duration_s)

    @cached_property
    def n_arrivals(self) -> int:
        """Requests that each policy gets."""
        return sum(1 for _ in self.chats)


@dataclass(slots=True)
class Progress:
    """How far the comparison is.

    Attributes:
        summaries: of the policies that have run.
        failures: why a policy could not be run, or not to its end.
        model_share: of the learned policy's decisions after burn-in; None before.
    """

    policy: str = ""
    client: LoadClient | None = None
    watch: Watch | None = None
    summaries: dict[str, Summary] = field(default_factory=dict)
    records: dict[str, list[LoadRecord]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    model_share: float | None = None

    def done_ratio(self, plan: DemoPlan) -> float:
        """Share of *plan* that is done: policies, and arrivals sent of the one that runs."""
        done = len(self.summaries.keys() | self.failures.keys())
        client = self.client
        if client is None or self.policy in self.summaries or self.policy in self.failures:
            return done / len(plan.policies)
        return (done + client.n_sent / max(1, plan.n_arrivals)) / len(plan.policies)


async def compare(plan: DemoPlan, progress: Progress, refresh: Callable[[], None]) -> None:
    """Run every policy of *plan*, keeping *progress* and calling *refresh* as it goes.

    One that cannot be run is told in *progress*, and those after it run all the same.
    """
    for policy in plan.policies:
        progress.policy, progress.client, progress.watch = policy, None, None
        refresh()
        folder = plan.folder / policy
        folder.mkdir(parents=True, exist_ok=True)
        try:
            async with running_stack(
                plan.fleet, {"policy": policy}, folder, port=plan.port, configure=plan.configure
            ) as stack:
                await _run(plan, stack, progress, refresh)
        except DemoError as error:
            progress.failures[policy] = str(error)
        refresh()


async def _run(
    plan: DemoPlan, stack: Stack, progress: Progress, refresh: Callable[[], None]
) -> None:
    progress.client = client = LoadClient(stack.url, model=MODEL)
    progress.watch = watch = Watch(stack.admin_url)
    watching = asyncio.create_task(watch.run())
    load = asyncio.create_task(client.run(plan.chats))
    try:
        while not load.done():
            await asyncio.wait([load], timeout=REFRESH_S)
            stack.processes.check()
            refresh()
        progress.summaries[progress.policy] = summarise(load.result())
        if progress.policy == "learned":
            progress.model_share = await watch.model_share()
    finally:
        progress.records[progress.policy] = client.records
        for task in (load, watching):
            task.cancel()
        await asyncio.gather(load, watching, return_exceptions=True)


def as_json(plan: DemoPlan, progress: Progress, versions: dict[str, str]) -> str:
    """The result for machines."""
    policies: dict[str, dict[str, float | int | None]] = {}
    for policy, s in progress.summaries.items():
        policies[policy] = {
            "requests": s.requests,
            "failed": s.failed,
            "ttft_mean_s": s.ttft_mean_s,
            "ttft_p50_s": s.ttft_p50_s,
            "ttft_p99_s": s.ttft_p99_s,
            "e2e_mean_s": s.e2e_mean_s,
        }
        if policy == "learned":
            policies[policy]["model_share"] = progress.model_share
    result = {
        "policies": policies,
        "not_run": progress.failures,
        "fleet": list(plan.fleet.accelerators),
        "duration_s": plan.duration_s,
        "rate_per_s": plan.rate_per_s,
        "seed": plan.seed,
        "versions": versions,
    }
    return json.dumps(result, indent=2) + "\n"


def known_policies(names: str, allowed: Sequence[str]) -> tuple[str, ...]:
    """*names*, separated by commas.

    Raises:
        ValueError: one is none of *allowed*.
    """
    policies = tuple(dict.fromkeys(name.strip() for name in names.split(",")))
    for name in policies:
        if name not in allowed:
            raise ValueError(f"no policy {name!r}; there are {', '.join(allowed)}")
    return policies
