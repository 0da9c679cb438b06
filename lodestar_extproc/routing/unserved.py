"""Why a request is not routed: there is no endpoint, or none that is fast enough."""

from __future__ import annotations

import math

from lodestar_extproc.decision import Candidates, Ranking, Reason


class NoEndpoint(Exception):  # noqa: N818  (the condition's name)
    """The pool has no endpoint for the request: Envoy's own policy, or a 503, must decide."""


class Overloaded(Exception):  # noqa: N818  (the condition's name)
    """No endpoint is predicted to meet a bound of the request, which may be refused.

    Args:
        excess_s: by how much the best endpoint misses it.
        bound: which one.

    Attributes:
        retry_after_s: the excess, whole, at least 1.
    """

    def __init__(self, excess_s: float, bound: str = "TTFT") -> None:
        super().__init__(
            f"every endpoint is predicted to miss the {bound} bound by {excess_s:.3g} s"
        )
        self.retry_after_s = max(1, math.ceil(excess_s))


def shed_if_late(ranking: Ranking, candidates: Candidates, ttft_slo_s: float | None) -> None:
    """Refuse what would come too late, or token by token too slowly, wherever it goes.

    Raises:
        Overloaded: the best prediction is beyond *ttft_slo_s*, or beyond the bound on TPOT.
    """
    _shed_if_late(ranking, ttft_slo_s)
    if candidates.tpot_s is not None and candidates.misses_tpot.all():
        excess_s = float(candidates.tpot_s.min()) - (candidates.tpot_slo_s or 0.0)
        raise Overloaded(excess_s, "TPOT")


def _shed_if_late(ranking: Ranking, ttft_slo_s: float | None) -> None:
    """Only a prediction that decides is believed."""
    predicted = ranking.predicted_ttft_s
    if ttft_slo_s is None or predicted is None:
        return
    if ranking.reason not in (Reason.MODEL, Reason.EXPLORATION):
        return
    excess_s = float(predicted.min()) - ttft_slo_s
    if excess_s > 0:
        raise Overloaded(excess_s)
