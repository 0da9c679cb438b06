"""CapacityWatch: keeps what was predicted lately, and says what the pool can still take."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import numpy as np

from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.decision import Decision
from lodestar_extproc.gain.capacity import Capacity, PredictedRequest, capacity, endpoints_worth
from lodestar_extproc.routing.ended_request import EndedRequest, ObservedFirstToken

WINDOW_S = 120.0
"""As autoscalers look: they ask every 15 to 30 s, and a new engine takes minutes to load."""
MAX_REQUESTS = 5_000  # 0.5 MB; of more, the last, and the time they came in
MIN_REQUESTS = 50
"""Of fewer, a rate is off by a seventh of itself, and its quantiles by more."""


class CapacityWatch:
    """A `RouterListener` of one pool; some fifteen microseconds a request.

    Args:
        settings: of the pool, as they are now.
        clock: monotonic seconds, the router's.
    """

    def __init__(
        self,
        settings: Callable[[], PoolSettings],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._requests: deque[PredictedRequest] = deque(maxlen=MAX_REQUESTS)

    def decided(self, decision: Decision) -> None:
        """See `RouterListener`."""
        ranking, request = decision.ranking, decision.candidates.request
        slo_s = request.ttft_slo_s or self._settings().ttft_slo_s
        if slo_s is None or ranking.service_s is None or ranking.predicted_ttft_s is None:
            return
        chosen, speeds = decision.chosen, decision.candidates.prefill_s_per_ktoken
        service_s = float(ranking.service_s[chosen])
        worth = endpoints_worth(chosen, service_s, speeds, slo_s)
        ttft_s = float(ranking.predicted_ttft_s[chosen])
        memory = decision.candidates.snapshot.kv_usage_ratio
        known = memory[~np.isnan(memory)]
        memory_ratio = float(known.mean()) if len(known) else 0.0
        self._requests.append(
            PredictedRequest(decision.at_s, worth, service_s, ttft_s, slo_s, memory_ratio)
        )

    def first_token(self, decision: Decision, first_token: ObservedFirstToken) -> None:
        """See `RouterListener`: what was predicted is enough."""

    def ended(self, request: EndedRequest) -> None:
        """See `RouterListener`: what was predicted is enough."""

    def capacity(self) -> Capacity | None:
        """What the pool takes; None without a bound on TTFT, or without enough predictions."""
        now_s = self._clock()
        lately = [r for r in self._requests if r.at_s > now_s - WINDOW_S]
        if len(lately) < MIN_REQUESTS:
            return None
        since_s = lately[0].at_s if len(lately) == MAX_REQUESTS else now_s - WINDOW_S
        first_s = max(since_s, self._requests[0].at_s)
        return capacity(lately, now_s - first_s)
