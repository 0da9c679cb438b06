"""lodestar_paper: the router of arXiv 2606.00946, as a whole, to be compared with.

It knows a learner, which should hold the paper's network (`predictor: mlp`).
"""

from __future__ import annotations

import random

import xxhash

from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.decision import Candidates, Ranking, Reason
from lodestar_extproc.features import Feature
from lodestar_extproc.learning.learner import Learner
from lodestar_extproc.policies.cost import GreedyTTFT
from lodestar_extproc.policies.learned import Learned
from lodestar_extproc.policies.prefix_cache import PrefixCache

# As the paper and its public code (gangmuk/Lodestar) have them.
SATURATED_KV_USAGE_RATIO = 0.8
MIN_HIT_TOKENS = 100.0
N_KEPT = 2
GROUP_TOKENS = 160.0
"""Prompts that share so many leading tokens are one group."""
NO_EXPLORATION = PoolSettings(exploration_ratio=0.0)


class LodestarPaper:
    """The lowest predicted TTFT; once caches are full, among the few that a prefix is kept on.

    Algorithm: argmin of the network's TTFT; `prefix_cache` before its first training, and for a
    choice outside of what was learned. When the mean KV usage is above 80 % and some endpoint
    holds more than 100 tokens of the prompt, the two endpoints of highest rendezvous hash with the
    prompt's group go first, so that a prefix does not spread over all caches.

    Cost: that of `learned`, and 1 µs an endpoint while caches are full. Without a signal: memory
    counted here stands in for a scraped KV usage; a prompt without blocks is not filtered.
    """

    name = "lodestar_paper"
    reads_learner = True

    def __init__(self, learner: Learner) -> None:
        self._greedy = Learned(learner, GreedyTTFT(), PrefixCache(), LiveSettings(NO_EXPLORATION))
        self.reads_demand = self._greedy.reads_demand

    def rank(self, candidates: Candidates, rng: random.Random) -> Ranking:
        ranking = self._greedy.rank(candidates, rng)
        if ranking.reason is not Reason.MODEL:
            return ranking
        return ranking.led_by(filtered(ranking.order, candidates))

    def dispatched(self, candidates: Candidates, ranking: Ranking) -> None:
        self._greedy.dispatched(candidates, ranking)


def filtered(order: tuple[int, ...], candidates: Candidates) -> tuple[int, ...]:
    """*order*, while caches are full with those first that the prompt's prefix is kept on."""
    if not _is_saturated(candidates):
        return order
    kept = _kept(candidates)
    return tuple(sorted(order, key=lambda i: i not in kept))  # stable: TTFT within


def _is_saturated(candidates: Candidates) -> bool:
    """Whether caches are full, and the prompt has a prefix worth keeping together."""
    if not candidates.request.block_hashes or candidates.matched_tokens.max() <= MIN_HIT_TOKENS:
        return False
    usage = candidates.features.values[:, Feature.KV_USAGE_RATIO]
    return float(usage.mean()) > SATURATED_KV_USAGE_RATIO


def _kept(candidates: Candidates) -> set[int]:
    """The endpoints of the prompt's group, by rendezvous hashing (Thaler and Ravishankar 1998)."""
    request, endpoints = candidates.request, candidates.snapshot.endpoints
    n_blocks = max(1, round(GROUP_TOKENS / max(1.0, request.tokens_per_block)))
    group = request.block_hashes[:n_blocks][-1]
    weights = [xxhash.xxh3_64_intdigest(e.address.encode(), seed=group) for e in endpoints]
    return set(sorted(range(len(endpoints)), key=weights.__getitem__)[-N_KEPT:])
