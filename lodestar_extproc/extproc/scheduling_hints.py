"""SchedulingHints: what the headers of a request ask for, by the names that clients may use.

It knows headers and settings; nothing of the body.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.names import (
    MODEL_REWRITE_HEADERS,
    OBJECTIVE_HEADERS,
    SESSION_HEADERS,
    TPOT_SLO_HEADERS,
    TTFT_SLO_HEADERS,
)


@dataclass(frozen=True, slots=True)
class SchedulingHints:
    """What the headers ask for.

    Attributes:
        ttft_slo_s, tpot_slo_s: bounds on the first token and on the time between tokens.
        priority: of the request's objective.
        session: the client's name for its session; empty where it has none.
        target_model: what to ask the engine for, whatever the body names; empty for no other.
    """

    ttft_slo_s: float | None = None
    tpot_slo_s: float | None = None
    priority: int = 0
    session: str = ""
    target_model: str = ""


NO_HINTS = SchedulingHints()


def scheduling_hints(headers: Mapping[str, str], settings: PoolSettings) -> SchedulingHints:
    """The hints in *headers*, whose names are in lower case, as far as settings trust them."""
    trusted = settings.trusted_headers
    bounds = headers if "slo" in trusted else {}
    objective = _first(headers, OBJECTIVE_HEADERS) if "objective" in trusted else ""
    return SchedulingHints(
        ttft_slo_s=_bound_s(bounds, TTFT_SLO_HEADERS),
        tpot_slo_s=_bound_s(bounds, TPOT_SLO_HEADERS),
        priority=settings.objective_priorities.of(objective),
        session=headers.get(settings.session_header.lower()) or _first(headers, SESSION_HEADERS),
        target_model=_first(headers, MODEL_REWRITE_HEADERS) if "model_rewrite" in trusted else "",
    )


def _first(headers: Mapping[str, str], names: Iterable[str]) -> str:
    """The first header of *names* that is not empty; empty where none is."""
    return next(filter(None, map(headers.get, names)), "")


def _bound_s(headers: Mapping[str, str], names: Iterable[str]) -> float | None:
    """The first header that holds a positive number of milliseconds, as seconds."""
    for name in names:
        try:
            bound_s = float(headers[name]) / 1e3
        except (KeyError, ValueError):
            continue
        if math.isfinite(bound_s) and bound_s > 0:
            return bound_s
    return None
