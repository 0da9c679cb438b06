"""Demand: what a pool is asked for, and where it went: arrivals, service, what caches lost.

One a pool, beside `Fleet`: the router tells it of every request that leaves, whoever decided, once
it is known where it goes. Asking changes nothing. It neither predicts nor chooses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lodestar_extproc.endpoint import COLUMNS, ONE, ZERO, Endpoint, FleetSnapshot, FloatArray
from lodestar_extproc.fleet.lost_prefixes import NOTHING_MISSED, LostPrefixes
from lodestar_extproc.fleet.outgrown_caches import OutgrownCaches
from lodestar_extproc.kernel.compiled import KERNEL, Kernel
from lodestar_extproc.kernel.structures import MemoryArrays
from lodestar_extproc.request import InferenceRequest

MEMORY_S = 30.0
"""Time constant of the means: hundreds of requests where the queue has a price, and short beside
the minutes in which traffic changes. Set by judgement."""
MEMORY_USED_S = 10.0
"""Over how long the use of memory is averaged: several answers. 3 s and 10 s did alike."""
MIN_RUN_S = 1.0
"""A mean is taken to have run for so long at least: the first gap says little of a rate."""

_MINUS_MEMORY_USED_S = np.array(-MEMORY_USED_S)
NOWHERE = -1
"""The column of an endpoint that had none."""
Columns = slice | list[int]


class DemandSnapshot(NamedTuple):
    """A pool's demand as a request arrives, with that request and before it is sent.

    Attributes:
        arrivals_per_s: requests a second, this one included.
        service_ratio: [n], seconds of service sent to each endpoint a second.
        asked_again_ratio: [n], of the tokens each cache loses to new prompts, those that are asked
            for again, 0 to 1; what this request asks for again is included.
        memory_ratio: [n], of each KV cache, a mean of what requests held of it lately; unknown
            counts as nothing.
        missed_tokens: [n], what this request asks for again, by where it was lost; empty where
            nothing was.
        outgrown: whether the sessions that run need more than all caches hold.
        lost_tokens: of this request's prompt, those that a cache had and none has any more.
    """

    arrivals_per_s: float
    service_ratio: FloatArray
    asked_again_ratio: FloatArray
    memory_ratio: FloatArray
    missed_tokens: FloatArray
    outgrown: bool = False
    lost_tokens: float = 0.0


def no_demand(n: int) -> DemandSnapshot:
    """What is known of *n* endpoints where nobody counted."""
    return DemandSnapshot(0.0, np.zeros(n), np.zeros(n), np.zeros(n), NOTHING_MISSED)


class Demand:
    """Counts the requests that leave; all rates are exponential means over `MEMORY_S`.

    Attributes:
        caches: whether they are outgrown; others only read it.

    Args:
        endpoints: the fleet at start.
        kernel: computes the use of memory; None for numpy alone.
    """

    def __init__(self, endpoints: Sequence[Endpoint] = (), kernel: Kernel | None = KERNEL) -> None:
        self._started_at_s: float | None = None
        self._at_s = 0.0
        self._arrivals = 0.0
        self._endpoints: Sequence[Endpoint] = ()
        self._column: dict[str, int] = {}
        self._service = np.zeros(0)
        self._memory = np.zeros(0)
        self._memory_seen_at_s = np.zeros(0)
        self._lost = LostPrefixes()
        self.caches = OutgrownCaches()
        self._kernel = kernel
        self.adopt(endpoints)

    def adopt(self, endpoints: Sequence[Endpoint]) -> None:
        """Adopt a new membership of the fleet; who stays keeps what was counted."""
        before = np.array([self._column.get(e.address, NOWHERE) for e in endpoints], int)
        self._service = _moved(self._service, before, 0.0)
        self._memory = _moved(self._memory, before, 0.0)
        self._memory_seen_at_s = _moved(self._memory_seen_at_s, before, -math.inf)
        self._memory_arrays = MemoryArrays(
            self._memory, self._memory_seen_at_s, len(COLUMNS), MEMORY_USED_S
        )
        self._column = {e.address: k for k, e in enumerate(endpoints)}
        self._endpoints = endpoints
        self._lost.adopt(endpoints)

    def snapshot(
        self,
        request: InferenceRequest,
        fleet: FleetSnapshot,
        sent_ratio: FloatArray,
        kept_ratio: FloatArray,
    ) -> DemandSnapshot:
        """The demand that *request* meets at the endpoints of *fleet*.

        Args:
            sent_ratio: [n], of its blocks those that each cache holds by what was sent there.
            kept_ratio: [n], those that it holds by what its engine finds, too.
        """
        decay, start_up = self._decay(fleet.at_s), self._start_up(fleet.at_s)
        arrivals = self._arrivals * decay + 1.0 / MEMORY_S
        columns = self._columns_of(fleet.endpoints)
        service = self._service[columns] * (start_up * decay)
        outgrown, endpoints = self.caches.outgrown, fleet.endpoints
        # Near tipping over a cache finds less than was sent for a while, and comes back by itself:
        # to count that as asked for again cost a tenth of the mean there.
        held_ratio = kept_ratio if outgrown else sent_ratio
        again, missed = self._lost.asked_again(request, endpoints, held_ratio)
        lost = missed
        if len(kept_ratio) and kept_ratio.max() < held_ratio.max():  # as much elsewhere is not lost
            _, lost = self._lost.asked_again(request, endpoints, kept_ratio)
        memory = self._memory_ratio(fleet, columns)
        lost_tokens = float(lost.max()) if len(lost) else 0.0
        return DemandSnapshot(
            arrivals * start_up, service, again, memory, missed, outgrown, lost_tokens
        )

    def _memory_ratio(self, fleet: FleetSnapshot, columns: Columns) -> FloatArray:
        if self._kernel is None or fleet.endpoints is not self._endpoints:
            return self._plain_memory_ratio(fleet, columns)
        arrays = self._memory_arrays
        arrays.values[:] = fleet.values
        arrays.struct.at_s = fleet.at_s
        self._kernel.memory_use(arrays.call)
        return arrays.told.copy()

    def _plain_memory_ratio(self, fleet: FleetSnapshot, columns: Columns) -> FloatArray:
        now = np.fmax(fleet.memory_used_ratio, ZERO)  # the greater of NaN and 0 is 0
        past_s = np.maximum(fleet.at_s - self._memory_seen_at_s[columns], ZERO)
        kept = np.exp(past_s / _MINUS_MEMORY_USED_S)
        mean: FloatArray = kept * self._memory[columns] + (ONE - kept) * now
        return mean

    def dispatch(
        self,
        request: InferenceRequest,
        fleet: FleetSnapshot,
        seen: DemandSnapshot,
        address: str,
        *,
        uncached_tokens: float,
        service_s: float,
    ) -> None:
        """Count *request*, which goes to *address*.

        Args:
            fleet, seen: what it was decided by.
            uncached_tokens: of its prompt, those that the endpoint has to compute.
            service_s: seconds of service that it adds there; what is no number adds nothing.
        """
        columns = self._columns_of(fleet.endpoints)
        self._memory[columns], self._memory_seen_at_s[columns] = seen.memory_ratio, fleet.at_s
        self.caches.count(request.prompt_tokens, seen.lost_tokens, self._decay(fleet.at_s))
        self._count(address, service_s, fleet.at_s)
        self.caches.look(seen.memory_ratio, fleet.kv_capacity_tokens, fleet.at_s)
        self._lost.place(
            request,
            fleet,
            address,
            uncached_tokens=uncached_tokens,
            missed_tokens=seen.missed_tokens,
        )

    def heard(
        self,
        request: InferenceRequest,
        address: str,
        *,
        uncached_tokens: float,
        missed_tokens: Mapping[str, float],
        service_s: float,
        at_s: float,
    ) -> None:
        """Count *request*, which another replica sent to *address*; the rest as in `dispatch`.

        Args:
            missed_tokens: what it asks for again, by where it was lost.
        """
        if address in self._column:
            self._count(address, service_s, max(at_s, self._at_s))
            self._lost.heard(request, address, uncached_tokens, missed_tokens)

    def _count(self, address: str, service_s: float, at_s: float) -> None:
        decay = self._decay(at_s)
        if self._started_at_s is None:
            self._started_at_s = at_s
        self._at_s = at_s
        self._arrivals = self._arrivals * decay + 1.0 / MEMORY_S
        self._service *= decay
        if 0.0 < service_s < math.inf:
            self._service[self._column[address]] += service_s / MEMORY_S

    def _columns_of(self, endpoints: Sequence[Endpoint]) -> Columns:
        if endpoints is self._endpoints:
            return slice(None)
        return [self._column[e.address] for e in endpoints]

    def _decay(self, at_s: float) -> float:
        """What is left at *at_s* of what was counted; a clock that steps back ages nothing."""
        return math.exp(-max(0.0, at_s - self._at_s) / MEMORY_S)

    def _start_up(self, at_s: float) -> float:
        """Corrects a mean that has not run for its memory yet."""
        run_s = 0.0 if self._started_at_s is None else at_s - self._started_at_s
        return 1.0 / (1.0 - math.exp(-max(run_s, MIN_RUN_S) / MEMORY_S))


def _moved(row: FloatArray, before: NDArray[np.int_], fresh: float) -> FloatArray:
    """*row* in a new order: of each endpoint the value where it stood *before*, else *fresh*."""
    moved, stays = np.full(len(before), fresh), before != NOWHERE
    moved[stays] = row[before[stays]]
    return moved
