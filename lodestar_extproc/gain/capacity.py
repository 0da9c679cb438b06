"""capacity(): requests a second that a pool can take within the bound on TTFT, as predicted.

It scales the traffic of the last minutes until too many would be late:

    u = Σx/(T·n)               share of the time in which an endpoint computes prompts, now
    U = u·(1 + g·u)            how busy it is: answers in the making, which grow too, slow it
    P(W > t) = U^a·exp(-t/τ)   wait for an endpoint, τ = E[x²]/(2·E[x]·n·(1 - U))
    late(u) = mean over requests of P(W > S - x - c)
    capacity = λ·u*/u          with the largest u* at which late(u*) is at most `LATE_RATIO`

x is a request's predicted service time where it was sent, S its bound, c what a first token takes
without any queue. The wait is that of a queue before n servers with an exponential tail; its
probability has the form of H. Sakasegawa, "An approximation formula L_q ≈ α·ρ^β/(1-ρ)", Annals of
the Institute of Statistical Mathematics 29, 1977: a = k·(√(2(n+1)) - 1), where k = 1 is one queue
for all. How far off it is: docs/autoscaling.md, by benchmarks/capacity.py.
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
FULL = 0.99  # no queue in equilibrium is fuller
BISECTIONS = 20  # parts 0 to 1 to a millionth
# Fitted on a30x8 with the workloads synthetic and prefix30; the other cells of
# benchmarks/capacity.py were not looked at.
GROWTH = 0.4
QUEUE_SHARING = 0.6  # k: each endpoint has its own queue, and the router does not see all of it
OVERHEAD_QUANTILE = 0.1
"""Of what was predicted beyond the own service time: requests that met no queue."""


class PredictedRequest(NamedTuple):
    """One decision, as capacity is reckoned from it.

    Attributes:
        service_s: predicted, where it was sent.
        ttft_s: predicted there, with the queue of that moment.
        slo_s: its bound.
    """

    at_s: float
    service_s: float
    ttft_s: float
    slo_s: float


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


def capacity(
    requests: Sequence[PredictedRequest], n_endpoints: int, lasted_s: float
) -> Capacity | None:
    """Of a pool of *n_endpoints* that was asked for *requests* within *lasted_s*.

    None without any, and where too many would be late on an idle pool: more endpoints would not
    help them.
    """
    if not requests or n_endpoints < 1 or lasted_s <= 0:
        return None
    columns = np.array(requests, dtype=np.float64)
    service_s, ttft_s, slo_s = columns[:, 1], columns[:, 2], columns[:, 3]
    offered_per_s = len(requests) / lasted_s
    used = offered_per_s * float(service_s.mean()) / n_endpoints
    if not used > 0:
        return None
    beyond_s = np.maximum(ttft_s - service_s, 0.0)
    # Of a crowded pool every request has a queue before it: then no more than half of all need.
    overhead_s = min(float(np.quantile(beyond_s, OVERHEAD_QUANTILE)), float(np.median(service_s)))
    patience_s = slo_s - service_s - overhead_s
    if (patience_s <= 0.0).mean() > LATE_RATIO:
        return None
    residual_s = float((service_s**2).mean() / (2.0 * service_s.mean()))
    most = _fullest(patience_s, residual_s, n_endpoints)
    return Capacity(offered_per_s, offered_per_s * most / used)


def _fullest(patience_s: FloatArray, residual_s: float, n_endpoints: int) -> float:
    """The largest share of time in which endpoints may compute prompts, 0 to `FULL`."""
    exponent = QUEUE_SHARING * (math.sqrt(2.0 * (n_endpoints + 1)) - 1.0)
    low, high = 0.0, FULL
    for _ in range(BISECTIONS):
        used = 0.5 * (low + high)
        busy = min(FULL, used * (1.0 + GROWTH * used))
        tau_s = residual_s / (n_endpoints * (1.0 - busy))
        late = busy**exponent * np.exp(-np.maximum(patience_s, 0.0) / tau_s)
        late_ratio = float(np.where(patience_s > 0.0, late, 1.0).mean())
        low, high = (used, high) if late_ratio <= LATE_RATIO else (low, used)
    return low
