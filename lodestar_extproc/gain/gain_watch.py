"""GainWatch: hears how requests ended, and keeps what the fallback and shadows would have done."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.decision import Decision
from lodestar_extproc.gain.compared import Compared, ComparedRequests, Gain
from lodestar_extproc.routing.ended_request import EndedRequest, ObservedFirstToken

SAMPLES_PER_S = 20.0
"""Requests that are compared; to ask the fallback takes some 50 µs, so a thousandth of a core."""
FALLBACK, SHADOW, DECIDED = "fallback", "shadow", "decided"


class GainWatch:
    """A `RouterListener` of one pool.

    Args:
        settings: of the pool, as they are now.
    """

    def __init__(self, settings: Callable[[], PoolSettings]) -> None:
        self._settings = settings
        self._next_at_s = float("-inf")
        self._compared: dict[tuple[str, str], ComparedRequests] = {}

    def decided(self, decision: Decision) -> None:
        """See `RouterListener`: a request counts when it has ended."""

    def first_token(self, decision: Decision, first_token: ObservedFirstToken) -> None:
        """See `RouterListener`: the end tells it again."""

    def ended(self, request: EndedRequest) -> None:
        """See `RouterListener`."""
        decision, at_s = request.decision, request.completion.at_s
        served = decision.index_of(request.served or decision.address)
        if at_s < self._next_at_s or served is None or not self._is_comparable(request, served):
            return
        self._next_at_s = at_s + 1.0 / SAMPLES_PER_S
        predicted, observed_s = decision.ranking.predicted_ttft_s, request.ttft_s
        assert predicted is not None
        assert observed_s is not None
        endpoints = decision.candidates.snapshot.endpoints
        for policy, role, other in self._others(decision):
            compared = self._compared.setdefault((policy, role), ComparedRequests())
            compared.add(
                Compared(
                    endpoints[served].address,
                    endpoints[other].address,
                    observed_s,
                    float(predicted[served]),
                    float(predicted[other]),
                )
            )

    def gains(self) -> list[Gain]:
        """Beside the fallback and each shadow that is asked now, what can be told."""
        settings = self._settings()
        if settings.shadow:
            wanted = [(settings.policy, DECIDED)]
        else:
            wanted = [(settings.fallback_policy, FALLBACK)]
            wanted += [(name, SHADOW) for name in settings.shadow_policies]
        nothing = ComparedRequests()
        return [self._compared.get(key, nothing).gain(*key) for key in dict.fromkeys(wanted)]

    def _is_comparable(self, request: EndedRequest, served: int) -> bool:
        """Whether its TTFT was seen and predicted, where the decision, or Envoy itself, sent it."""
        decision = request.decision
        if not (request.used and request.is_served and request.ttft_s):
            return False
        if decision.ranking.predicted_ttft_s is None or len(decision.candidates) < 2:
            return False
        return self._settings().shadow or served == decision.chosen

    def _others(self, decision: Decision) -> Iterator[tuple[str, str, int]]:
        if self._settings().shadow:
            # Nobody follows the decisions: they are what is compared with what happens.
            yield decision.policy, DECIDED, decision.chosen
            return
        account = decision.ranking.account
        choice = None if account is None else account.fallback_choice(decision.candidates)
        if account is not None and choice is not None:
            yield account.fallback_policy, FALLBACK, choice
        for policy, index in decision.shadows:
            yield policy, SHADOW, index
