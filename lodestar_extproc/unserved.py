"""Why a request is not routed: there is no endpoint, or none that is fast enough."""

from __future__ import annotations

import math

from lodestar_extproc.decision import Ranking, Reason


class NoEndpoint(Exception):  # noqa: N818  (the condition's name)
    """The pool has no endpoint for the request: Envoy's own policy, or a 503, must decide."""


class Overloaded(Exception):  # noqa: N818  (the condition's name)
    """No endpoint is predicted to meet the request's bound on TTFT, which may be refused.

    Attributes:
        retry_after_s: by how much the best endpoint misses the bound; whole, at least 1.
    """

    def __init__(self, excess_s: float) -> None:
        super().__init__(f"every endpoint is predicted to miss the TTFT bound by {excess_s:.1f} s")
        self.retry_after_s = max(1, math.ceil(excess_s))


def shed_if_late(ranking: Ranking, ttft_slo_s: float | None) -> None:
    """Refuse what would come too late; only a prediction that decides is believed.

    Raises:
        Overloaded: the best prediction is beyond *ttft_slo_s*.
    """
    predicted = ranking.predicted_ttft_s
    if ttft_slo_s is None or predicted is None:
        return
    if ranking.reason not in (Reason.MODEL, Reason.EXPLORATION):
        return
    excess_s = float(predicted.min()) - ttft_slo_s
    if excess_s > 0:
        raise Overloaded(excess_s)
