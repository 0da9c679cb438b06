"""EndToEnd: a cost function for clients that wait for whole answers, or for the next token.

It knows how long answers take to generate, not how long they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.decision import Candidates
from lodestar_extproc.endpoint import Endpoint, FloatArray
from lodestar_extproc.learning.predictor import Estimate
from lodestar_extproc.policies.cost import Externality, demand_of, utilisation

GenerationTimes = Callable[[Sequence[Endpoint]], FloatArray]
"""Mean seconds from first token to end on the accelerator of each endpoint, [n]."""


class EndToEnd:
    """TTFT, and g times the time from there to the end of the answer, its own and others'.

        cost = (`Externality` without d) + g·(n·x + G·(1-ρ₀)/(1-ρ))

    Each of the n requests that generate there ends x seconds later, for a prefill shares their
    steps. The request's own answer takes G seconds on such an accelerator, whose endpoints spend
    the share ρ₀ of their time on prefills; where that share is ρ, it takes (1-ρ₀)/(1-ρ) times as
    long. Both are the utilisation that `Externality` knows.

    g = 1 prices end-to-end latency. For a given answer the time between tokens is G over its
    length: g above 1 gives TPOT more weight than TTFT.

    Args:
        externality: own TTFT and cost to others, with no price of its own for slower tokens.
        generation_s: what is known of G.
        live: `generation_weight` is g.
    """

    name = "end_to_end"
    reads_demand = True

    def __init__(
        self, externality: Externality, generation_s: GenerationTimes, live: LiveSettings
    ) -> None:
        self._externality = externality
        self._generation_s = generation_s
        self._live = live

    def score(self, estimate: Estimate, candidates: Candidates) -> FloatArray:
        """Own time to the end, and what the request adds to others', [n]."""
        cost = self._externality.score(estimate, candidates)
        slowed_s = candidates.snapshot.decode_requests * estimate.service_s
        weight = self._live.current.generation_weight
        return cost + weight * (slowed_s + self.generation_s(candidates))

    def terms(self, estimate: Estimate, candidates: Candidates) -> dict[str, FloatArray]:
        """See `CostFunction`."""
        weight = self._live.current.generation_weight
        slowed_s = candidates.snapshot.decode_requests * estimate.service_s
        return self._externality.terms(estimate, candidates) | {
            "slower_tokens": weight * slowed_s,
            "generation": weight * self.generation_s(candidates),
        }

    def weights(self, candidates: Candidates) -> None:
        """The kernel does not know how long answers take."""

    def generation_s(self, candidates: Candidates) -> FloatArray:
        """Seconds the request's own answer will take from its first token to its end, [n]."""
        endpoints = candidates.snapshot.endpoints
        free = 1.0 - utilisation(demand_of(candidates))
        free_of = {kind: free[same].mean() for kind, same in _by_accelerator(endpoints).items()}
        usual = np.array([free_of[e.accelerator] for e in endpoints])
        taken_s: FloatArray = self._generation_s(endpoints) * usual / free
        return taken_s


def _by_accelerator(endpoints: Sequence[Endpoint]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for i, endpoint in enumerate(endpoints):
        found.setdefault(endpoint.accelerator, []).append(i)
    return found
