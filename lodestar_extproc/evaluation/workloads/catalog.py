"""The workloads by name, and those that are read from a file of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from lodestar_extproc.evaluation.bench_names import AGENT_WORKLOADS, WORKLOADS
from lodestar_extproc.evaluation.workloads.agent_sessions import PRODUCTION, AgentSessions
from lodestar_extproc.evaluation.workloads.agentic import Agentic
from lodestar_extproc.evaluation.workloads.azure import read_azure
from lodestar_extproc.evaluation.workloads.mooncake import read_mooncake
from lodestar_extproc.evaluation.workloads.prefixes import SharedPrefixes
from lodestar_extproc.evaluation.workloads.recorded import read_recorded
from lodestar_extproc.simulator.arrival import Workload

MOONCAKE_SOURCE = "https://github.com/kvcache-ai/Mooncake, FAST25-release/traces"
AZURE_SOURCE = "https://github.com/Azure/AzurePublicDataset, data"


class WorkloadSource(Protocol):
    """What a workload is drawn from."""

    def generate(self, rate_per_s: float, seed: int, n_requests: int) -> Workload:
        """At least *n_requests* requests at *rate_per_s*; the same for the same *seed*."""
        ...


@dataclass(frozen=True, slots=True)
class TraceFile:
    """A public trace.

    Attributes:
        tokens_per_hash: for Mooncake traces; 0 for others.
    """

    name: str
    source: str
    tokens_per_hash: int = 0


TRACES: Mapping[str, TraceFile] = MappingProxyType(
    {
        "conversation": TraceFile("conversation_trace.jsonl", MOONCAKE_SOURCE, 50),
        "synthetic": TraceFile("synthetic_trace.jsonl", MOONCAKE_SOURCE, 200),
        "bursty": TraceFile("AzureLLMInferenceTrace_code.csv", AZURE_SOURCE),
    }
)
GENERATED: Mapping[str, WorkloadSource] = MappingProxyType(
    {
        "prefix30": SharedPrefixes(0.3),
        "prefix50": SharedPrefixes(0.5),
        "agentic": Agentic(),
        "agent_sessions": AgentSessions(),
        # Twice as many, for twice the working set on the same caches.
        "agent_crowd": AgentSessions(live_sessions=80.0),
        "agent_sessions_16": AgentSessions(scale=16.0, live_sessions=27.0),
        "agent_sessions_full": AgentSessions(scale=1.0, output_scale=1.0, population=PRODUCTION),
    }
)


class NoWorkload(ValueError):  # noqa: N818  (the condition's name)
    """There is no such workload, or its trace is not there."""


def find_workload(name: str, *, traces: Path, tokens_per_hash: int | None = None) -> WorkloadSource:
    """The workload called *name*, or the one in the file at that path.

    Args:
        name: one of `WORKLOADS`, or a path.
        traces: folder that holds the public traces, at any depth.
        tokens_per_hash: for a Mooncake trace; None takes the workload's own.

    Raises:
        NoWorkload: there is none, with what to do.
    """
    if name in GENERATED:
        return GENERATED[name]
    if name in TRACES:
        trace = TRACES[name]
        return _read(_find(trace, traces), tokens_per_hash or trace.tokens_per_hash)
    path = Path(name)
    if not path.is_file():
        known = ", ".join((*WORKLOADS, *AGENT_WORKLOADS))
        raise NoWorkload(f"no workload {name!r}: name a file, or one of {known}")
    return _read(path, tokens_per_hash or 0)


def _find(trace: TraceFile, folder: Path) -> Path:
    found = sorted(folder.rglob(trace.name)) if folder.is_dir() else []
    if not found:
        raise NoWorkload(
            f"{trace.name} is not in {folder}: get it from {trace.source}, and name its folder "
            "by --traces"
        )
    return found[0]


def _read(path: Path, tokens_per_hash: int) -> WorkloadSource:
    try:
        if path.suffix == ".csv":
            return read_azure(path)
        if tokens_per_hash:
            return read_mooncake(path, tokens_per_hash)
        if b'"hash_ids"' in path.read_bytes()[:100_000]:
            raise NoWorkload(
                f"{path} is a Mooncake trace: say how many tokens a hash id stands "
                "for by --tokens-per-hash (512 as recorded)"
            )
        return read_recorded(path)
    except (ValueError, OSError) as error:
        raise NoWorkload(str(error)) from None
