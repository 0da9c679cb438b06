"""route_to(): the reply that tells Envoy where a request goes, by a pool's settings."""

from __future__ import annotations

from collections.abc import Sequence

from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.extproc import conformance
from lodestar_extproc.extproc.events import Phase, RouteTo


def route_to(
    phase: Phase,
    ranked: Sequence[str],
    told_id: str,
    settings: PoolSettings,
    new_body: bytes | None = None,
    predicted_ttft_s: float | None = None,
) -> RouteTo:
    """To the first of *ranked*, of which as many are told as retries may take.

    Args:
        told_id: of a decision or a look-up, by which the answer is known.
        new_body: in place of the request's own; None leaves it.
        predicted_ttft_s: of the first; None where nothing was predicted.
    """
    addresses = tuple(ranked[: 0 if settings.shadow else settings.retry_candidates])
    headers = conformance.request_headers(addresses) if settings.conformance_headers else ()
    return RouteTo(phase, addresses, told_id, headers, new_body, predicted_ttft_s)
