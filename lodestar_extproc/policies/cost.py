"""Cost functions: what choosing an endpoint costs, to the request itself and to those after it.

They know predictions and demand; not who predicts, and not whether to believe it. To score changes
nothing: what they read of the past is counted by `fleet/demand.py`.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.decision import Candidates
from lodestar_extproc.endpoint import FleetSnapshot, FloatArray
from lodestar_extproc.fleet.demand import DemandSnapshot, no_demand
from lodestar_extproc.learning.predictor import Estimate

MAX_UTILISATION = 0.92
"""Of what is routed, which is estimated, and more than is served where work piles up: beyond it the
price of the queue would follow errors. Set by judgement."""
MAX_MEMORY_USED = 0.98
"""Beyond it memory costs no more: engines keep about 2 % (`features.KV_USABLE_RATIO`)."""
OWN_SHARE = 0.5
"""Of an endpoint's utilisation: half its own, half the fleet's, for it moves with the fleet's."""


class CostFunction(Protocol):
    """Scores candidates, as often as it is asked: that changes nothing.

    Attributes:
        reads_demand: whether it reads `candidates.demand`, which is counted only for those who do.
    """

    name: str
    reads_demand: bool

    def score(self, estimate: Estimate, candidates: Candidates) -> FloatArray:
        """Cost of each candidate, seconds, [n]; the lowest is best."""
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
    reads_demand = False

    def score(self, estimate: Estimate, candidates: Candidates) -> FloatArray:  # noqa: ARG002
        """The predicted TTFT, [n]."""
        return estimate.ttft_s


class Externality:
    """Own TTFT, and the delay that the request causes to those who come after it.

        cost = p + w·λ/(2(1-ρ))·(2·v·x + x²) + (d·n + e·q)·x + m·s·u/(1-u)

    In an M/G/1 queue the relative value of a backlog v is λv²/(2(1-ρ)): the waiting it will cause.
    Adding x seconds behind v raises it by the term above, so this is one step of policy
    improvement over a static random split. λ is the fleet's arrival rate times the endpoint's
    share of its speed; ρ is from the service that was routed, both as exponential means (`Demand`).

    Those who come later and find a long backlog go elsewhere, so v counts up to a limit, where one
    is set: λv²/(2(1-ρ)) is for a split that looks at nothing.

    The n requests that generate there share their steps with the prefill, so each of their next
    tokens comes up to x seconds later; a late token is worth less than a late first token.

    The prompt's uncached tokens take the place of as many others in the prefix cache. The share q
    of these that is asked for again (see `LostPrefixes`) has to be computed again: q·x seconds.

    While it is served the request holds the share s of the KV cache's memory. With the share u in
    use (see `memory_used`), its own included, those who come later wait for memory ever longer as u
    nears 1.

    The settings are w `externality_weight`, the limit of v `backlog_limit_s`, d `decode_weight`, e
    `eviction_weight` and m `memory_weight_s`.

    Args:
        prices_slower_tokens: False for d = 0, whatever the setting says.
    """

    name = "externality"
    reads_demand = True

    def __init__(self, live: LiveSettings, *, prices_slower_tokens: bool = True) -> None:
        self._live = live
        self._prices_slower_tokens = prices_slower_tokens

    def score(self, estimate: Estimate, candidates: Candidates) -> FloatArray:
        """Own TTFT plus the weighted delay to others, [n]."""
        x, v, settings = estimate.service_s, estimate.backlog_s, self._live.current
        demand = demand_of(candidates)
        if settings.backlog_limit_s is not None:
            v = np.minimum(v, settings.backlog_limit_s)
        congestion = arrival_rate(demand, estimate) / (1.0 - utilisation(demand))
        price = 0.5 * settings.externality_weight * congestion * (v + v + x)
        if self._prices_slower_tokens:
            price += settings.decode_weight * candidates.snapshot.decode_requests
        price += settings.eviction_weight * demand.asked_again_ratio
        cost: FloatArray = estimate.ttft_s + price * x + self._memory_s(candidates)
        return cost

    def _memory_s(self, candidates: Candidates) -> FloatArray:
        """The price of the memory the request takes; 0 where nobody knows how much there is."""
        snapshot = candidates.snapshot
        own = candidates.request.prompt_tokens / snapshot.kv_capacity_tokens
        used = np.minimum(memory_used(snapshot) + own, MAX_MEMORY_USED)
        # The greater of NaN and 0 is 0 there.
        return self._live.current.memory_weight_s * np.fmax(own * used / (1.0 - used), 0.0)


def demand_of(candidates: Candidates) -> DemandSnapshot:
    """As it was counted; none where nobody did, as in a journal."""
    return no_demand(len(candidates)) if candidates.demand is None else candidates.demand


def arrival_rate(demand: DemandSnapshot, estimate: Estimate) -> FloatArray:
    """λ: requests a second that are each endpoint's share by its speed 1/c, [n]."""
    speed = 1.0 / estimate.s_per_ktoken
    rate: FloatArray = demand.arrivals_per_s / float(speed.sum()) * speed
    return rate


def utilisation(demand: DemandSnapshot) -> FloatArray:
    """ρ: seconds of service routed to each endpoint a second, bounded, [n]."""
    own = demand.service_ratio
    fleet = min(MAX_UTILISATION, float(own.sum()) / len(own))
    mixed: FloatArray = np.minimum(MAX_UTILISATION, (1 - OWN_SHARE) * fleet + OWN_SHARE * own)
    return mixed
