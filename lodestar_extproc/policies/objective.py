"""Objectives: what choosing an endpoint costs, to the request itself and to those after it.

They know predictions and arrivals; not who predicts, and not whether to believe it.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from lodestar_extproc.decision import Candidates
from lodestar_extproc.endpoint import FleetSnapshot, FloatArray
from lodestar_extproc.learning.endpoint_table import EndpointTable
from lodestar_extproc.learning.models import Estimate
from lodestar_extproc.policies.cache_price import CachePrice

MEMORY_S = 30.0
MAX_UTILISATION = 0.92
MAX_MEMORY_USED = 0.98
MEMORY_USED_S = 10.0
"""Over how long the use of memory is averaged: several answers. 3 s and 10 s do alike."""
OWN_SHARE = 0.5
"""Of an endpoint's utilisation: half its own, half the fleet's, for it moves with the fleet's."""


class Objective(Protocol):
    """Scores candidates. Told of every request that arrives and of where it went."""

    name: str

    def arrived(self, candidates: Candidates) -> None:
        """A request is about to be scored."""
        ...

    def score(self, estimate: Estimate, candidates: Candidates) -> FloatArray:
        """Cost of each candidate, seconds, [n]; the lowest is best."""
        ...

    def routed(self, candidates: Candidates, chosen: int, service_s: float) -> None:
        """The request went to candidate *chosen*, whoever decided, and adds *service_s* there."""
        ...


def memory_used(snapshot: FleetSnapshot) -> FloatArray:
    """Share of each KV cache that the requests there hold, [n]; NaN where its size is unknown.

    Counted prompt by prompt, blocks that prompts share count more than once. The engine reports a
    shared block once, but not yet those of prompts that wait. Neither is far too low, so the lower
    of the two counts; without a report, what is counted.
    """
    counted = snapshot.decode_context_tokens + snapshot.prefill_prompt_tokens
    waiting_ratio = snapshot.prefill_uncached_tokens / snapshot.kv_capacity_tokens
    used: FloatArray = np.fmin(
        counted / snapshot.kv_capacity_tokens, snapshot.kv_usage_ratio + waiting_ratio
    )
    return used


class GreedyTTFT:
    """The request's own predicted TTFT, whatever it does to others."""

    name = "ttft"

    def arrived(self, candidates: Candidates) -> None:
        """Nothing to count."""

    def score(self, estimate: Estimate, candidates: Candidates) -> FloatArray:  # noqa: ARG002
        """The predicted TTFT, [n]."""
        return estimate.ttft_s

    def routed(self, candidates: Candidates, chosen: int, service_s: float) -> None:
        """Nothing to count."""


class Externality:
    """Own TTFT, and the delay that the request causes to those who come after it.

        cost = p + c·x + e·q·(1 + c)·x + m·s·u/(1-u)  with  c = w·λ/(2(1-r))·(2·v + x) + d·n

    In an M/G/1 queue the relative value of a backlog u is λu²/(2(1-r)): the waiting it will cause.
    Adding x seconds behind v raises it by the term above, so this is one step of policy
    improvement over a static random split. λ is the fleet's arrival rate times the endpoint's
    share of its speed.

    r is how busy the scarcer of an endpoint's two resources is: time to compute in, whose use ρ is
    what was routed, and memory to hold requests in (see `memory_used`), both as exponential means.
    Where long prompts are mostly cached there is little to compute, and the engine is full: then a
    prefill of x seconds keeps all requests that generate in memory for so much longer.

    Those who come later and find a long backlog go elsewhere, so v counts up to a limit, where one
    is set: λu²/(2(1-r)) is for a split that looks at nothing.

    The n requests that generate there share their steps with the prefill, so each of their next
    tokens comes up to x seconds later; a late token is worth less than a late first token.

    The prompt's uncached tokens take the place of as many others in the prefix cache. The share q
    of these that is asked for again (see `CachePrice`) has to be computed again, which will take as
    long, and cost others as much, as computing these now.

    While it is served the request holds the share s of the KV cache's memory. With the share u in
    use (see `memory_used`), its own included, those who come later wait for memory ever longer as u
    nears 1.

    Args:
        weight: w, 0 for no price of the queue.
        backlog_limit_s: of v, seconds; None for no limit.
        decode_weight: d, 0 for no price of slower tokens.
        eviction_weight: e, 0 for no price of what the cache loses.
        memory_weight_s: m, seconds; 0 for no price of memory.
    """

    name = "externality"

    def __init__(
        self,
        weight: float = 2.0,
        *,
        backlog_limit_s: float | None = None,
        decode_weight: float = 0.15,
        eviction_weight: float = 1.0,
        memory_weight_s: float = 0.3,
    ) -> None:
        self._weight = weight
        self._backlog_limit_s = backlog_limit_s
        self._decode_weight = decode_weight
        self._eviction_weight = eviction_weight
        self._memory_weight_s = memory_weight_s
        self._cache_price = CachePrice()
        self._started_at_s: float | None = None
        self._at_s = 0.0
        self._arrivals = 0.0
        self._service = EndpointTable(np.zeros(1))
        self._memory_used = EndpointTable(np.full(2, np.nan))

    def arrived(self, candidates: Candidates) -> None:
        """Age what was counted, and count one arrival."""
        at_s = candidates.snapshot.at_s
        self._cache_price.arrived(candidates)
        if self._started_at_s is None:
            self._started_at_s = self._at_s = at_s
        decay = math.exp(-max(0.0, at_s - self._at_s) / MEMORY_S)
        self._at_s = at_s
        self._arrivals = self._arrivals * decay + 1.0 / MEMORY_S
        self._service.scale(decay)
        self._watch_memory(candidates.snapshot)

    def _watch_memory(self, snapshot: FleetSnapshot) -> None:
        """Its mean use, and when that was seen last; unknown counts as none."""
        self._memory_used.retain(snapshot.endpoints)
        mean, seen_at_s = self._memory_used.gather(snapshot.endpoints).T
        now = np.nan_to_num(memory_used(snapshot), nan=0.0)
        past_s = np.nan_to_num(snapshot.at_s - seen_at_s, nan=math.inf)
        kept = np.exp(-np.maximum(past_s, 0.0) / MEMORY_USED_S)
        mean = kept * np.nan_to_num(mean) + (1.0 - kept) * now
        rows = np.stack([mean, np.full(len(mean), snapshot.at_s)], axis=1)
        self._memory_used.update(snapshot.endpoints, rows)

    def score(self, estimate: Estimate, candidates: Candidates) -> FloatArray:
        """Own TTFT plus the weighted delay to others, [n]."""
        self._service.retain(candidates.snapshot.endpoints)
        x, v = estimate.service_s, estimate.backlog_s
        if self._backlog_limit_s is not None:
            v = np.minimum(v, self._backlog_limit_s)
        congestion = self.arrival_rate(estimate) / (1.0 - self.busy_ratio(candidates))
        price = 0.5 * self._weight * congestion * (v + v + x)
        price += self._decode_weight * candidates.snapshot.decode_requests
        lost = self._eviction_weight * self._cache_price.shares(candidates)
        price += lost * (1.0 + price)
        cost: FloatArray = estimate.ttft_s + price * x + self._memory_s(candidates)
        return cost

    def _memory_s(self, candidates: Candidates) -> FloatArray:
        """The price of the memory the request takes; 0 where nobody knows how much there is."""
        snapshot = candidates.snapshot
        own = candidates.request.prompt_tokens / snapshot.kv_capacity_tokens
        used = np.minimum(memory_used(snapshot) + own, MAX_MEMORY_USED)
        # The greater of NaN and 0 is 0 there.
        return self._memory_weight_s * np.fmax(own * used / (1.0 - used), 0.0)

    def arrival_rate(self, estimate: Estimate) -> FloatArray:
        """λ: requests a second that are each endpoint's share by its speed 1/c, [n]."""
        speed = 1.0 / estimate.s_per_ktoken
        rate: FloatArray = self._arrivals * self._start_up() / float(speed.sum()) * speed
        return rate

    def utilisation(self, candidates: Candidates) -> FloatArray:
        """ρ: seconds of service routed to each endpoint a second, bounded, [n]."""
        own = self._start_up() * self._service.gather(candidates.snapshot.endpoints)[:, 0]
        fleet = min(MAX_UTILISATION, float(own.sum()) / len(own))
        mixed: FloatArray = np.minimum(MAX_UTILISATION, (1 - OWN_SHARE) * fleet + OWN_SHARE * own)
        return mixed

    def busy_ratio(self, candidates: Candidates) -> FloatArray:
        """r: use of the scarcer of computing time and memory, bounded, [n]."""
        memory = self._memory_used.gather(candidates.snapshot.endpoints)[:, 0]
        # What was never seen is unknown: then the other counts.
        busy: FloatArray = np.fmax(
            self.utilisation(candidates), np.minimum(memory, MAX_UTILISATION)
        )
        return busy

    def routed(self, candidates: Candidates, chosen: int, service_s: float) -> None:
        """Count its service where it went."""
        self._cache_price.placed(candidates, chosen)
        address = candidates.snapshot.endpoints[chosen].address
        routed = self._service.row(address, "") + service_s / MEMORY_S
        self._service.set(address, routed)

    def _start_up(self) -> float:
        """Corrects a mean that has not run for its memory yet."""
        run_s = self._at_s - (self._at_s if self._started_at_s is None else self._started_at_s)
        return 1.0 / (1.0 - math.exp(-max(run_s, 1.0) / MEMORY_S))
