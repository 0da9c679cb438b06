"""History: an hour of minute values of one pool, for the page's charts; kept in memory."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lodestar_extproc.decision import Decision
from lodestar_extproc.endpoint import FloatArray
from lodestar_extproc.gain.compared import Gain
from lodestar_extproc.routing.ended_request import EndedRequest, ObservedFirstToken
from lodestar_extproc.routing.pool_view import PoolView

MINUTES, MINUTE_S = 60, 60.0  # an hour
MAX_TIMED = 1000
"""Requests of a minute whose times are kept; their 95 % quantile is sure to a few per cent."""


@dataclass(slots=True)
class _Minute:
    """What came in one minute.

    Attributes:
        chosen, prompt_tokens, hit_tokens: by endpoint.
    """

    began_s: float
    observed_s: list[float] = field(default_factory=list)
    predicted_s: list[float] = field(default_factory=list)
    requests: int = 0
    chosen: dict[str, int] = field(default_factory=dict)
    prompt_tokens: dict[str, float] = field(default_factory=dict)
    hit_tokens: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Closed:
    """What came in one minute, and the pool at its end; small, for endpoints may be many.

    Attributes:
        figures: of the pool, as plain JSON types.
        addresses: of the endpoints as they were then.
        in_flight, requests, hit_ratio: by endpoint, [n].
    """

    figures: dict[str, Any]
    addresses: tuple[str, ...]
    in_flight: FloatArray
    requests: FloatArray
    hit_ratio: FloatArray

    def as_json(self) -> dict[str, Any]:
        rows = zip(
            self.addresses,
            self.in_flight.tolist(),
            self.requests.tolist(),
            self.hit_ratio.tolist(),
            strict=True,
        )
        endpoints = {
            address: {"in_flight": n, "requests": int(requests), "hit_ratio": hits}
            for address, n, requests, hits in rows
        }
        return self.figures | {"endpoints": endpoints}


class PoolHistory:
    """A `RouterListener` of one pool, which closes each minute when it is looked at.

    Args:
        wall_clock: seconds since 1970.
    """

    def __init__(self, wall_clock: Callable[[], float] = time.time) -> None:
        self._wall_clock = wall_clock
        self._minutes: deque[_Closed] = deque(maxlen=MINUTES)
        self._now = _Minute(self._began_s())

    def decided(self, decision: Decision) -> None:
        """See `RouterListener`."""
        now, candidates, address = self._now, decision.candidates, decision.address
        now.requests += 1
        now.chosen[address] = now.chosen.get(address, 0) + 1
        tokens, hits = candidates.request.prompt_tokens, candidates.matched_tokens[decision.chosen]
        now.prompt_tokens[address] = now.prompt_tokens.get(address, 0.0) + tokens
        now.hit_tokens[address] = now.hit_tokens.get(address, 0.0) + float(hits)

    def first_token(self, decision: Decision, first_token: ObservedFirstToken) -> None:
        """See `RouterListener`: the end tells it again."""

    def ended(self, request: EndedRequest) -> None:
        """See `RouterListener`."""
        now = self._now
        if request.ttft_s is None or len(now.observed_s) >= MAX_TIMED:
            return
        now.observed_s.append(request.decision.held_s + request.ttft_s)
        predicted_s = request.decision.predicted_ttft_s
        if predicted_s is not None:
            now.predicted_s.append(predicted_s)

    def look(self, view: PoolView, gains: Callable[[], Sequence[Gain]]) -> None:
        """Close the minute that is over, with what the pool is then."""
        if self._wall_clock() >= self._now.began_s + MINUTE_S:
            self._minutes.append(_closed(self._now, view, gains()))
            self._now = _Minute(self._began_s())

    def minutes(self) -> list[dict[str, Any]]:
        """The last hour as plain JSON types, oldest first; NaN stands for unknown."""
        return [minute.as_json() for minute in self._minutes]

    def _began_s(self) -> float:
        return MINUTE_S * math.floor(self._wall_clock() / MINUTE_S)


def _closed(minute: _Minute, view: PoolView, gains: Sequence[Gain]) -> _Closed:
    snapshot, learner = view.snapshot, view.learner
    addresses = tuple([endpoint.address for endpoint in snapshot.endpoints])
    first = next(iter(gains), None)
    figures = {
        "time_s": minute.began_s,
        "requests_per_s": minute.requests / MINUTE_S,
        "observed": _quantiles(minute.observed_s),
        "predicted": _quantiles(minute.predicted_s),
        "error_ratio": learner.error_ratio,
        "state": str(learner.reason),
        "gain_ratio": None if first is None else first.ratio,
    }

    def by_endpoint(counted: Mapping[str, float]) -> FloatArray:
        return np.array([counted.get(address, 0) for address in addresses], float)

    hit_ratio = by_endpoint(minute.hit_tokens) / np.fmax(1.0, by_endpoint(minute.prompt_tokens))
    return _Closed(figures, addresses, snapshot.in_flight, by_endpoint(minute.chosen), hit_ratio)


def _quantiles(values_s: Sequence[float]) -> dict[str, float | None]:
    if not values_s:
        return {"p50_s": None, "p95_s": None}
    p50_s, p95_s = np.quantile(values_s, (0.5, 0.95)).tolist()
    return {"p50_s": p50_s, "p95_s": p95_s}
