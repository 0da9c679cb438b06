"""Cost functions: what choosing an endpoint costs, to the request itself and to those after it.

They know predictions and demand; not who predicts, and not whether to believe it. To score changes
nothing: what they read of the past is counted by `fleet/demand.py`.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np

from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.decision import Candidates
from lodestar_extproc.endpoint import ONE, ZERO, FloatArray
from lodestar_extproc.fleet.demand import DemandSnapshot, no_demand
from lodestar_extproc.learning.predictor import Estimate

MAX_UTILISATION = 0.92
"""Of what is routed, which is estimated, and more than is served where work piles up: beyond it the
price of the queue would follow errors. Set by judgement."""
MAX_MEMORY_USED = 0.98
"""Beyond it memory costs no more: engines keep about 2 % (`features.KV_USABLE_RATIO`)."""
MAX_SPARED_S = 150.0
"""So much more the cache that is spared most is dear than the one that overflows: without an end to
it whoever is sent there would wait for minutes. By runs: docs/decisions/0046-*.md."""
OWN_SHARE = 0.5
"""Of an endpoint's utilisation: half its own, half the fleet's, for it moves with the fleet's."""

# As `endpoint.ONE`.
_MAX_UTILISATION, _MAX_MEMORY_USED = np.array(MAX_UTILISATION), np.array(MAX_MEMORY_USED)
_OWN_SHARE = np.array(OWN_SHARE)


class CostWeights(NamedTuple):
    """What a cost of `Externality`'s form is computed with; its settings by the formula's letters.

    Attributes:
        weighs_others: False for one's own TTFT alone, whatever else stands here.
        externality, decode, eviction, memory_s: w, d, e and m.
        backlog_limit_s: of v; infinite for none.
        cascade_limit: 1 - 1/g where caches are outgrown, 0 elsewhere.
    """

    weighs_others: bool = False
    externality: float = 0.0
    decode: float = 0.0
    eviction: float = 0.0
    memory_s: float = 0.0
    backlog_limit_s: float = math.inf
    cascade_limit: float = 0.0


OWN_TTFT = CostWeights()


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

    def terms(self, estimate: Estimate, candidates: Candidates) -> dict[str, FloatArray]:
        """What `score` adds up, each part by its name, seconds, [n]; for those who ask why."""
        ...

    def weights(self, candidates: Candidates) -> CostWeights | None:
        """What the compiled kernel scores *candidates* by; None for a cost that it does not know.

        A property test holds that it says what `score` says.
        """
        ...


class GreedyTTFT:
    """The request's own predicted TTFT, whatever it does to others."""

    name = "ttft"
    reads_demand = False

    def score(self, estimate: Estimate, candidates: Candidates) -> FloatArray:  # noqa: ARG002
        """The predicted TTFT, [n]."""
        return estimate.ttft_s

    def terms(self, estimate: Estimate, candidates: Candidates) -> dict[str, FloatArray]:  # noqa: ARG002
        """See `CostFunction`."""
        return {"own_ttft": estimate.ttft_s}

    def weights(self, candidates: Candidates) -> CostWeights:  # noqa: ARG002
        """See `CostFunction`."""
        return OWN_TTFT


class Externality:
    """Own TTFT, and the delay that the request causes to those who come after it.

        cost = p + h·x + e·q·(1 + h)·x + m·s·u/(1-u)  with  h = w·λ/(2(1-r))·(2·v + x) + d·n

    h is what a second of work costs others. In an M/G/1 queue the relative value of a backlog v is
    λv²/(2(1-r)): the waiting it will cause. Adding x seconds behind v raises it by the first term
    of h·x, so this is one step of policy improvement over a static random split. λ is the fleet's
    arrival rate times the endpoint's share of its speed.

    r is how busy the scarcer of an endpoint's two resources is: time to compute in, whose use ρ is
    what was routed, and memory to hold requests in (`memory_used_ratio`), both as exponential means
    (`Demand`). Where long prompts are mostly cached there is little to compute, and the engine is
    full: then a prefill keeps all requests that generate in memory for so much longer.

    Those who come later and find a long backlog go elsewhere, so v counts up to a limit, where one
    is set: λv²/(2(1-r)) is for a split that looks at nothing.

    The n requests that generate there share their steps with the prefill, so each of their next
    tokens comes up to x seconds later; a late token is worth less than a late first token.

    The prompt's uncached tokens take the place of as many others in the prefix cache. The share q
    of these that is asked for again (see `LostPrefixes`) has to be computed again, which will take
    as long, and cost others as much, as computing these now.

    That displaces others in its turn, of which q is asked for again, and so on. Where the sessions
    that run have outgrown all caches (`fleet/outgrown_caches.py`), the sum of that counts too:
    q' = q/(1 - min(q, 1 - 1/g)) in place of q, g times at most. It spares the caches that are of
    use and lets one overflow; what it adds is bounded to `MAX_SPARED_S` over the least of all.

    While it is served the request holds the share s of the KV cache's memory. With the share u in
    use (`memory_used_ratio`), its own included, those who come later wait for memory ever longer as
    u nears 1.

    The settings are w `externality_weight`, the limit of v `backlog_limit_s`, d `decode_weight`, e
    `eviction_weight`, g `eviction_depth` and m `memory_weight_s`.

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
        congestion = arrival_rate(demand, estimate) / (ONE - busy_ratio(demand))
        price = 0.5 * settings.externality_weight * congestion * (v + v + x)
        if self._prices_slower_tokens:
            price += settings.decode_weight * candidates.snapshot.decode_requests
        lost = settings.eviction_weight * demand.asked_again_ratio
        twice = price + lost * (ONE + price)
        cost: FloatArray = estimate.ttft_s + twice * x + self._memory_s(candidates)
        return cost + self._cascade_s(demand, price, x) if demand.outgrown else cost

    def terms(self, estimate: Estimate, candidates: Candidates) -> dict[str, FloatArray]:
        """See `CostFunction`; a test holds that they add up to `score`."""
        x, settings, demand = estimate.service_s, self._live.current, demand_of(candidates)
        limit_s = np.inf if settings.backlog_limit_s is None else settings.backlog_limit_s
        v = np.minimum(estimate.backlog_s, limit_s)
        congestion = arrival_rate(demand, estimate) / (1.0 - busy_ratio(demand))
        delay = 0.5 * settings.externality_weight * congestion * (2.0 * v + x)
        decode_weight = settings.decode_weight if self._prices_slower_tokens else 0.0
        decode = decode_weight * candidates.snapshot.decode_requests
        lost = settings.eviction_weight * demand.asked_again_ratio * (1.0 + delay + decode) * x
        cascade_s = self._cascade_s(demand, delay + decode, x) if demand.outgrown else 0.0
        return {
            "own_ttft": estimate.ttft_s,
            "delay_to_others": delay * x,
            "slower_tokens": decode * x,
            "lost_cache": lost + cascade_s,
            "memory": self._memory_s(candidates),
        }

    def weights(self, candidates: Candidates) -> CostWeights:
        """See `CostFunction`."""
        settings = self._live.current
        limit_s = settings.backlog_limit_s
        return CostWeights(
            True,  # noqa: FBT003  (by place: it is made for every decision)
            settings.externality_weight,
            settings.decode_weight if self._prices_slower_tokens else 0.0,
            settings.eviction_weight,
            settings.memory_weight_s,
            math.inf if limit_s is None else limit_s,
            1.0 - 1.0 / settings.eviction_depth if demand_of(candidates).outgrown else 0.0,
        )

    def _cascade_s(self, demand: DemandSnapshot, price: FloatArray, x: FloatArray) -> FloatArray:
        """What is displaced by computing again what this request displaces, and so on, [n]."""
        settings, again = self._live.current, demand.asked_again_ratio
        more = again / (ONE - np.minimum(again, 1.0 - 1.0 / settings.eviction_depth)) - again
        whole_s = settings.eviction_weight * more * (ONE + price) * x
        bounded_s: FloatArray = np.minimum(whole_s, whole_s.min() + MAX_SPARED_S)
        return bounded_s

    def _memory_s(self, candidates: Candidates) -> FloatArray:
        """The price of the memory the request takes; 0 where nobody knows how much there is."""
        snapshot = candidates.snapshot
        own = candidates.request.prompt_tokens / snapshot.kv_capacity_tokens
        used = np.minimum(snapshot.memory_used_ratio + own, _MAX_MEMORY_USED)
        # The greater of NaN and 0 is 0 there.
        weight_s = self._live.current.memory_weight_s
        price_s: FloatArray = weight_s * np.fmax(own * used / (ONE - used), ZERO)
        return price_s


def demand_of(candidates: Candidates) -> DemandSnapshot:
    """As it was counted; none where nobody did, as in a journal."""
    return no_demand(len(candidates)) if candidates.demand is None else candidates.demand


def arrival_rate(demand: DemandSnapshot, estimate: Estimate) -> FloatArray:
    """λ: requests a second that are each endpoint's share by its speed 1/c, [n]."""
    speed = ONE / estimate.s_per_ktoken
    # Where no endpoint has any speed there is no share: not a number, and no error either.
    total = np.float64(sum(speed.tolist()))
    rate: FloatArray = demand.arrivals_per_s / total * speed
    return rate


def utilisation(demand: DemandSnapshot) -> FloatArray:
    """ρ: seconds of service routed to each endpoint a second, bounded, [n]."""
    bounded: FloatArray = np.minimum(_mixed_service(demand), _MAX_UTILISATION)
    return bounded


def _mixed_service(demand: DemandSnapshot) -> FloatArray:
    own = demand.service_ratio
    fleet = min(MAX_UTILISATION, sum(own.tolist()) / len(own))
    mixed: FloatArray = _OWN_SHARE * own + (1 - OWN_SHARE) * fleet
    return mixed


def busy_ratio(demand: DemandSnapshot) -> FloatArray:
    """r: use of the scarcer of computing time and memory, bounded, [n]."""
    busy: FloatArray = np.minimum(
        np.maximum(_mixed_service(demand), demand.memory_ratio), _MAX_UTILISATION
    )
    return busy
