"""Scenarios: what goes wrong, or changes, while a workload runs; each is a few values.

Times are shares of the run, so that a scenario means the same at any rate.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.evaluation.frames import Frames, Trouble
from lodestar_extproc.routing.router import Router
from lodestar_extproc.simulator.cluster import VirtualCluster
from lodestar_extproc.simulator.envoy_signals import EnvoySignals

CHANGE_AT = 1 / 3
"""When the change comes, as a share of the run."""


class Incident(Protocol):
    """Something that happens once, or between two times."""

    def plan(self, cluster: VirtualCluster, run_s: float) -> None:
        """Put it on the agenda of *cluster*, which will run for about *run_s*."""
        ...


@dataclass(frozen=True, slots=True)
class Slowdown:
    """Machine *number* takes *factor* times as long a step, for a share of the run."""

    number: int
    factor: float = 3.0
    lasts: float = 1.0

    def plan(self, cluster: VirtualCluster, run_s: float) -> None:
        engine = cluster.machines[self.number].engine
        cluster.plan(CHANGE_AT * run_s, lambda: engine.slow_down(self.factor))
        if self.lasts < 1.0 - CHANGE_AT:
            cluster.plan((CHANGE_AT + self.lasts) * run_s, lambda: engine.slow_down(1.0))


@dataclass(frozen=True, slots=True)
class Joining:
    """Machine *number* is not there before the change, and then joins cold."""

    number: int

    def plan(self, cluster: VirtualCluster, run_s: float) -> None:
        everyone = _endpoints(cluster)
        _adopt(cluster.routers, [e for i, e in enumerate(everyone) if i != self.number])
        cluster.plan(CHANGE_AT * run_s, lambda: _adopt(cluster.routers, everyone))


@dataclass(frozen=True, slots=True)
class Leaving:
    """Machine *number* takes no new requests from the change on; those it has are served."""

    number: int

    def plan(self, cluster: VirtualCluster, run_s: float) -> None:
        rest = [e for i, e in enumerate(_endpoints(cluster)) if i != self.number]
        cluster.plan(CHANGE_AT * run_s, lambda: _adopt(cluster.routers, rest))


@dataclass(frozen=True, slots=True)
class Crash:
    """Machine *number* breaks off all it has, refuses for a while, and comes back cold."""

    number: int
    lasts_s: float = 20.0
    at: float = CHANGE_AT

    def plan(self, cluster: VirtualCluster, run_s: float) -> None:
        machine, at_s = cluster.machines[self.number], self.at * run_s
        cluster.plan(at_s, lambda: cluster.crash(self.number))
        cluster.plan(at_s + self.lasts_s, lambda: machine.restart(seed=self.number))


@dataclass(frozen=True, slots=True)
class Scenario:
    """One way to make it hard.

    Attributes:
        text: what happens, for tables.
        signals: what Envoy delivers.
        index_ratio: size of the prefix index over that of the engine's cache.
        jitter_cv: spread of the steps' times; None for the engine's own.
        n_routers: each sees only its own requests.
        frames: by which they share what they see; None where they share nothing.
        incidents: what happens when.
        workloads: that follow one another at equal times; "" stands for the cell's own.
        load: share of saturation at which it is run where none is asked for.
        measured_from: share of the run that is left out of the figures.
    """

    text: str
    signals: EnvoySignals = field(default_factory=EnvoySignals)
    index_ratio: float = 1.0
    jitter_cv: float | None = None
    n_routers: int = 1
    frames: Frames | None = None
    incidents: tuple[Incident, ...] = ()
    workloads: tuple[str, ...] = ("",)
    load: float = 0.85
    measured_from: float = 0.25

    def __post_init__(self) -> None:
        if self.incidents:
            object.__setattr__(self, "measured_from", CHANGE_AT)
            object.__setattr__(self, "load", min(self.load, 0.7))


STEADY = Scenario("nothing")

SCENARIOS: Mapping[str, Scenario] = MappingProxyType(
    {
        "steady": STEADY,
        "cold_start": Scenario("the whole run from nothing", measured_from=0.0),
        "workload_shift": Scenario(
            "conversation, then the cell's workload, then synthetic",
            workloads=("conversation", "", "synthetic"),
            measured_from=CHANGE_AT,
        ),
        "slow": Scenario("one instance 3x slower from a third on", incidents=(Slowdown(2),)),
        "slow_and_back": Scenario(
            "one instance 3x slower for a sixth of the run", incidents=(Slowdown(2, lasts=1 / 6),)
        ),
        "join": Scenario("a cold instance joins", incidents=(Joining(7),)),
        "leave": Scenario("an instance leaves", incidents=(Leaving(3),)),
        "scrape_1s": Scenario("metrics every second", signals=EnvoySignals(scrape_interval_s=1.0)),
        "scrape_10s": Scenario("metrics every 10 s", signals=EnvoySignals(scrape_interval_s=10.0)),
        "no_scrape": Scenario(
            "no metrics at all", signals=EnvoySignals(scrape_interval_s=math.inf)
        ),
        "index_double": Scenario("prefix index twice the cache", index_ratio=2.0),
        "index_half": Scenario("prefix index half the cache", index_ratio=0.5),
        "tokens_over": Scenario(
            "prompt tokens estimated 1.5 times too high",
            signals=EnvoySignals(token_estimate_ratio=1.5, token_estimate_spread=0.15),
        ),
        "tokens_under": Scenario(
            "prompt tokens estimated at 0.6 of the truth",
            signals=EnvoySignals(token_estimate_ratio=0.6, token_estimate_spread=0.15),
        ),
        "noise": Scenario("steps vary by 20 %", jitter_cv=0.2),
        "aborts": Scenario(
            "a fifth of the clients leave after 2 s without a token",
            signals=EnvoySignals(abort_ratio=0.2),
        ),
        "failures": Scenario(
            "three instances crash one after the other, 20 s each",
            incidents=(Crash(1), Crash(4, at=0.5), Crash(6, at=0.7)),
        ),
        "two_routers": Scenario("two routers that share nothing", n_routers=2),
        "false_labels": Scenario(
            "1 of 20 first tokens reported up to 100 times too early or late",
            signals=EnvoySignals(false_label_ratio=0.05),
        ),
    }
)


def find_scenario(name: str) -> Scenario:
    """The scenario *name*, or the one that `routers_scenario` called so.

    Raises:
        ValueError: there is none.
    """
    if name in SCENARIOS:
        return SCENARIOS[name]
    found = re.fullmatch(
        r"routers (\d+)(?: share (\d+)ms(?: loss ([0-9.]+))?(?: (parted|dies))?)?", name
    )
    if found is None:
        raise ValueError(f"no scenario {name!r}; there are {', '.join(SCENARIOS)}")
    n_routers, frame_ms, loss = int(found[1]), found[2], float(found[3] or 0)
    frames = (
        None
        if frame_ms is None
        else Frames(int(frame_ms) / 1000.0, loss_ratio=loss, trouble=Trouble(found[4] or ""))
    )
    return Scenario(f"{n_routers} routers", n_routers=n_routers, frames=frames)


def routers_scenario(
    n_routers: int,
    frame_ms: int | None,
    loss_ratio: float = 0.0,
    trouble: Trouble = Trouble.NONE,
) -> str:
    """The name of a scenario of so many routers, which share by frames, or nothing."""
    share = "" if frame_ms is None else f" share {frame_ms}ms"
    loss = f" loss {loss_ratio:g}" if loss_ratio and share else ""
    what = f" {trouble}" if trouble and share else ""
    return f"routers {n_routers}{share}{loss}{what}"


def _endpoints(cluster: VirtualCluster) -> list[Endpoint]:
    return [m.endpoint for m in cluster.machines]


def _adopt(routers: Sequence[Router], endpoints: list[Endpoint]) -> None:
    for router in routers:
        router.set_endpoints(endpoints)
        for endpoint in endpoints:
            router.fleet.record_probe(endpoint.address, healthy=True, at_s=0.0)
