"""capacity(): requests a second that a pool can take within the bound on TTFT, as predicted.

It scales the traffic of the last minutes until too many would be late:

    u = Σx/(T·n)               share of the time in which an endpoint computes prompts, now
    U = u·(1 + g·u)            how busy it is: answers in the making, which grow too, slow it
    P(W > t) = U^a·exp(-t/τ)   wait for an endpoint, τ = E[x²]/(2·E[x]·n·(1 - U))
    late(u) = mean over requests of P(W > S - x - c)
    capacity = λ·min(u*/u, 0.9/m)   with the largest u* at which late(u*) is at most `LATE_RATIO`

n is how many of the endpoints that were chosen the pool is worth, by speed; those too slow for the
bound are worth nothing. x is a request's predicted service time where it was sent, S its bound,
c what a first token takes without any queue, m the share of the KV caches in use. The wait is that
of a queue before n servers with an exponential tail; its probability has the form of H. Sakasegawa,
"An approximation formula L_q ≈ α·ρ^β/(1-ρ)", Annals of the Institute of Statistical Mathematics 29,
1977: a = k·(√(2(n+1)) - 1), where k = 1 is one queue for all. How far off it is:
docs/autoscaling.md, by benchmarks/capacity.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lodestar_extproc.endpoint import FloatArray

LATE_RATIO = 0.05
"""Of requests that may miss their bound: a P95, as objectives are mostly written."""
LATEST = 50
"""Requests by which endpoints are counted: one that came or left is to be seen soon."""
MEMORY_FULL_RATIO = 0.9  # from there on engines preempt requests
FULL = 0.99  # no queue in equilibrium is fuller
BISECTIONS = 20  # parts 0 to 1 to a millionth
# Fitted on a30x8 with the workloads synthetic and prefix30, and left so when the other cells of
# benchmarks/capacity.py were seen.
GROWTH = 0.4
QUEUE_SHARING = 0.6  # k: each endpoint has its own queue, and the router does not see all of it
OVERHEAD_QUANTILE = 0.1
"""Of what was predicted beyond the own service time: requests that met no queue."""


class PredictedRequest(NamedTuple):
    """One decision, as capacity is reckoned from it.

    Attributes:
        endpoints: so many of the one it was sent to the pool was worth for it.
        service_s: predicted, where it was sent.
        ttft_s: predicted there, with the queue of that moment.
        slo_s: its bound.
        memory_ratio: share of the KV caches in use then, of all endpoints; 0 where unknown.
    """

    at_s: float
    endpoints: float
    service_s: float
    ttft_s: float
    slo_s: float
    memory_ratio: float = 0.0


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a pool takes, in requests of the kind it was given lately.

    Attributes:
        offered_per_s: requests a second, lately.
        capacity_per_s: the most of them within the bound.
    """

    offered_per_s: float
    capacity_per_s: float

    @property
    def spare_per_s(self) -> float:
        """What can still come; below 0 for too much already."""
        return self.capacity_per_s - self.offered_per_s

    @property
    def used_ratio(self) -> float:
        """Above 1 there is too much."""
        return self.offered_per_s / self.capacity_per_s


def capacity(requests: Sequence[PredictedRequest], lasted_s: float) -> Capacity | None:
    """Of a pool that was asked for *requests* within *lasted_s*.

    None without any, and where too many would be late on an idle pool: more endpoints would not
    help them.
    """
    if not requests or lasted_s <= 0:
        return None
    _, endpoints, service_s, ttft_s, slo_s, memory = np.array(requests, dtype=np.float64).T
    offered_per_s = len(requests) / lasted_s
    n = float(endpoints[-LATEST:].mean())
    used = offered_per_s * float(service_s.mean()) / n if n > 0 else 0.0
    if not used > 0:
        return None
    beyond_s = np.maximum(ttft_s - service_s, 0.0)
    # Of a crowded pool every request has a queue before it: then no more than half of all need.
    overhead_s = min(float(np.quantile(beyond_s, OVERHEAD_QUANTILE)), float(np.median(service_s)))
    patience_s = slo_s - service_s - overhead_s
    if (patience_s <= 0.0).mean() > LATE_RATIO:
        return None
    residual_s = float((service_s**2).mean() / (2.0 * service_s.mean()))
    most = _fullest(patience_s, residual_s, n)
    # Answers in the making fill the caches in proportion to the load, at the least.
    fits = MEMORY_FULL_RATIO / max(float(memory.mean()), 1e-9)
    return Capacity(offered_per_s, offered_per_s * min(most / used, fits))


def _fullest(patience_s: FloatArray, residual_s: float, n: float) -> float:
    """The largest share of time in which endpoints may compute prompts, 0 to `FULL`."""
    exponent = QUEUE_SHARING * (math.sqrt(2.0 * (n + 1.0)) - 1.0)
    low, high = 0.0, FULL
    for _ in range(BISECTIONS):
        used = 0.5 * (low + high)
        busy = min(FULL, used * (1.0 + GROWTH * used))
        tau_s = residual_s / (n * (1.0 - busy))
        late = busy**exponent * np.exp(-np.maximum(patience_s, 0.0) / tau_s)
        late_ratio = float(np.where(patience_s > 0.0, late, 1.0).mean())
        low, high = (used, high) if late_ratio <= LATE_RATIO else (low, used)
    return low


def endpoints_worth(chosen: int, service_s: float, s_per_ktoken: FloatArray, slo_s: float) -> float:
    """How many endpoints like the *chosen* one the pool is worth for a request.

    One of twice its speed is two; one on which it would be late without a queue, none.
    """
    slowness = s_per_ktoken / s_per_ktoken[chosen]
    return float((1.0 / slowness)[service_s * slowness <= slo_s].sum())
