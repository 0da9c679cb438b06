"""Cells: one policy under one load each, and the arrivals that every policy of a round gets.

It knows neither engines nor what came of a cell.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, Self

from session_text import LETTERS_PER_TOKEN, Spoken, Until
from trace_text import TRACE_FILES, replayed

from lodestar_extproc.evaluation.chats import BYTES_PER_TOKEN, MIXES, Arrival, ChatMix, Chats
from lodestar_extproc.evaluation.load import no_turns
from lodestar_extproc.evaluation.workloads.agent_sessions import AgentSessions
from lodestar_extproc.evaluation.workloads.catalog import GENERATED, WorkloadSource
from lodestar_extproc.simulator.arrival import Workload

TRACES = Path("traces")
CPU_BLOCK_TOKENS = 32
"""Of a cache on CPU."""
CPU_SHARE = 1 / 8
"""Of a prompt's length on CPU: a core is a thousand times slower than a GPU."""
FIRST_SEED = 100
SESSIONS: Mapping[str, WorkloadSource] = MappingProxyType(
    # As many more as the caches of four whole cards hold more, and some; fewer for two cards.
    {
        **GENERATED,
        "agent_sessions_140": AgentSessions(live_sessions=140.0),
        "agent_sessions_105": AgentSessions(live_sessions=105.0),
        "agent_sessions_70": AgentSessions(live_sessions=70.0),
    }
)
"""Workloads in which turns wait for answers."""
WARM_UP_S = 10.0
SESSIONS_WARM_UP_S = 15.0
"""Left out of the figures: every cache and every model begins empty, and sessions are long."""
SPARE_REQUESTS = 1.5
"""Times as many as are to come, as who answers quickly is asked more."""


class Load(Protocol):
    """What is sent: arrivals by time, and what follows their answers."""

    def __iter__(self) -> Iterator[Arrival]: ...

    def next_turns(self, arrival: Arrival, ended_at_s: float) -> Sequence[Arrival]:
        """What is asked because *arrival* has ended."""
        ...


class Listed:
    """Arrivals that wait for nothing."""

    next_turns = staticmethod(no_turns)

    def __init__(self, arrivals: Sequence[Arrival]) -> None:
        self._arrivals = arrivals

    def __iter__(self) -> Iterator[Arrival]:
        return iter(self._arrivals)


@dataclass(frozen=True)
class Cell:
    """One policy under one load.

    Attributes:
        round: also seeds the arrivals.
        repeat: the same policy on the same arrivals, once more; 0 is the first time.
    """

    fleet: str
    workload: str
    rate_per_s: float
    policy: str
    round: int
    duration_s: float
    repeat: int = 0

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The cell that *values*, which may hold more, describe."""
        return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})

    @property
    def name(self) -> str:
        return (
            f"{self.fleet}-{self.workload}-{self.rate_per_s:.2f}-{self.policy}-r{self.round}"
            f"-{self.duration_s:.0f}s" + (f"-again{self.repeat}" if self.repeat else "")
        )

    @property
    def has_sessions(self) -> bool:
        """Whether turns wait for answers."""
        return self.workload in SESSIONS

    @property
    def warm_up_s(self) -> float:
        """What is left out of the figures called `warm`."""
        return SESSIONS_WARM_UP_S if self.has_sessions else WARM_UP_S

    def load(self, *, on_cpu: bool, traces: Path = TRACES) -> Load:
        """The same for every policy and repeat of a round; see `arrivals`."""
        if self.has_sessions:
            return Spoken(self.sessions())
        return Listed(self.arrivals(on_cpu=on_cpu, traces=traces))

    def sessions(self) -> Workload:
        """Those of a workload in which turns wait for answers, without text."""
        n = round(SPARE_REQUESTS * self.rate_per_s * self.duration_s)
        source = SESSIONS[self.workload]
        return Until(source.generate(self.rate_per_s, FIRST_SEED + self.round, n), self.duration_s)

    def arrivals(self, *, on_cpu: bool, traces: Path = TRACES) -> list[Arrival]:
        """The same for every policy and repeat of a round.

        Args:
            traces: folder of the public traces, for workloads that replay one.
        """
        seed = FIRST_SEED + self.round
        if self.workload not in MIXES:
            path = traces / TRACE_FILES[self.workload]
            return list(replayed(path, self.rate_per_s, seed, self.duration_s))
        mix = replace(_scaled(MIXES[self.workload], on_cpu=on_cpu), rate_per_s=self.rate_per_s)
        return list(Chats(mix, seed, self.duration_s))


def interleaved(
    fleet: str,
    workload: str,
    rate_per_s: float,
    policies: Sequence[str],
    rounds: Sequence[int],
    duration_s: float,
    repeat: int = 0,
) -> Iterator[Cell]:
    """Every policy once a round, in an order of its own."""
    for number in rounds:
        seed = f"{fleet}{workload}{rate_per_s}{number}" + "again" * repeat
        for policy in random.Random(seed).sample(list(policies), len(policies)):
            yield Cell(fleet, workload, rate_per_s, policy, number, duration_s, repeat)


def _scaled(mix: ChatMix, *, on_cpu: bool) -> ChatMix:
    """So that the tokens of a mix, which are of 4 letters, are tokens of the made model."""
    scale = LETTERS_PER_TOKEN / BYTES_PER_TOKEN * (CPU_SHARE if on_cpu else 1.0)

    def both(bounds: tuple[int, int]) -> tuple[int, int]:
        return round(bounds[0] * scale), round(bounds[1] * scale)

    return replace(
        mix,
        system_tokens=round(mix.system_tokens * scale),
        turn_tokens=both(mix.turn_tokens),
        document_tokens=both(mix.document_tokens),
        question_tokens=both(mix.question_tokens),
    )
