"""Sequel: workloads that follow one another, as when a service's traffic changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lodestar_extproc.simulator.arrival import VirtualRequest, Workload


@dataclass(frozen=True, slots=True)
class Part:
    """A workload whose own arrivals stop after *lasts_s*; its sessions go on."""

    workload: Workload
    lasts_s: float


class Sequel:
    """Parts one after the other."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = tuple(parts)
        self.min_think_s = min(p.workload.min_think_s for p in self._parts)

    def __iter__(self) -> Iterator[VirtualRequest]:
        begins_s = 0.0
        for number, part in enumerate(self._parts):
            for request in part.workload:
                if request.at_s > part.lasts_s:
                    break
                yield self._outside(request, number, begins_s + request.at_s)
            begins_s += part.lasts_s

    def next_turns(self, request: VirtualRequest, ended_at_s: float) -> tuple[VirtualRequest, ...]:
        """The next turns of a session, in the part it began in."""
        if request.session < 0:
            return ()
        session, number = divmod(request.session, len(self._parts))
        inside = replace(request, session=session)
        follows = self._parts[number].workload.next_turns(inside, ended_at_s)
        return tuple(self._outside(follow, number, follow.at_s) for follow in follows)

    def _outside(self, request: VirtualRequest, number: int, at_s: float) -> VirtualRequest:
        session = request.session
        if session >= 0:
            session = session * len(self._parts) + number
        return replace(request, at_s=at_s, session=session)
