"""How long a pool may hold a request, by how long Envoy waits for a choice."""

from __future__ import annotations

from dataclasses import replace

from lodestar_extproc.config.settings import HOLD_LIMIT_S, PoolSettings

WAIT_MARGIN_S = 0.5
"""What Envoy is asked to wait beyond what we hold: as long as for a choice in the shipped files."""


def with_hold_limit(settings: PoolSettings, longest_wait_s: float) -> PoolSettings:
    """*settings*, that hold requests no longer than Envoy waits where they do not say how long.

    Args:
        longest_wait_s: of the filter that asks for choices; 0 where none is known.
    """
    if settings.hold_limit_s is not None:
        return settings
    limit_s = max(0.0, min(HOLD_LIMIT_S, longest_wait_s - WAIT_MARGIN_S))
    return replace(settings, hold_limit_s=limit_s)
