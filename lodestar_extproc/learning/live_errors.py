"""LiveErrors: how wrong the predictions were lately, and the interval that follows from it.

It sees pairs of prediction and observation, each prediction made before its observation; it knows
neither what predicted nor what is done about an error.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

import numpy as np
from river import stats, utils

from lodestar_extproc.endpoint import Endpoint, FloatArray
from lodestar_extproc.learning.endpoint_table import EndpointTable

FLEET_ERROR_SAMPLES, ENDPOINT_ERROR_SAMPLES = 50, 20
"""Behind the median error, by which trust is lost: few, so that it is lost within seconds."""
TOO_FAST_RATIO = 0.5
"""Of the time predicted; as wrong as costs an endpoint its trust by default."""
INTERVAL_WINDOW = 200
"""Each tail beyond the interval rests on 20 of them."""
MIN_INTERVAL_SAMPLES = 30
"""With fewer an endpoint has the fleet's interval: a tail of its own would rest on two."""
LOW_QUANTILE, HIGH_QUANTILE = 0.1, 0.9  # 80 % of the observations between them
UNKNOWN_FACTORS = (1 / 3, 3.0)
"""The interval before anything was observed, as factors on the prediction."""
COVERAGE_WINDOW = 500
"""The share inside the interval is then known to within 2 %."""


class ErrorWindow:
    """The last predictions at one place, beside what was observed.

    Args:
        error_samples: the median error is that of so many.
        pairs: what it holds at first.

    Raises:
        ValueError: a time in *pairs* is not above 0 and finite.
    """

    def __init__(self, error_samples: int, pairs: Iterable[Sequence[float]] = ()) -> None:
        self._pairs: deque[tuple[float, float]] = deque(maxlen=INTERVAL_WINDOW)
        self._error = stats.RollingQuantile(0.5, error_samples)
        self._low = stats.RollingQuantile(LOW_QUANTILE, INTERVAL_WINDOW)
        self._high = stats.RollingQuantile(HIGH_QUANTILE, INTERVAL_WINDOW)
        for predicted_s, observed_s in pairs:
            if not (0 < predicted_s < math.inf and 0 < observed_s < math.inf):
                raise ValueError(f"no times: predicted {predicted_s}, observed {observed_s}")
            self.add(predicted_s, observed_s)

    def __len__(self) -> int:
        return len(self._pairs)

    def add(self, predicted_s: float, observed_s: float) -> None:
        """Take in one pair, both above 0."""
        self._pairs.append((predicted_s, observed_s))
        self._error.update(abs(observed_s - predicted_s) / min(observed_s, predicted_s))
        log_ratio = math.log(observed_s / predicted_s)
        self._low.update(log_ratio)
        self._high.update(log_ratio)

    @property
    def error_ratio(self) -> float | None:
        """Median of |observed - predicted| over the smaller of both; None before the first pair.

        Half of what was observed is as wrong as twice: 1.
        """
        return float(self._error.get()) if self._pairs else None

    @property
    def is_too_fast(self) -> bool:
        """Whether the last first tokens came in less than half the time predicted, as a rule."""
        last = list(self._pairs)[-ENDPOINT_ERROR_SAMPLES:]
        return bool(last) and median(o / p for p, o in last) < TOO_FAST_RATIO

    @property
    def factors(self) -> tuple[float, float]:
        """Observed over predicted: its 10 % and 90 % quantiles; needs a pair."""
        return math.exp(self._low.get()), math.exp(self._high.get())

    def pairs(self) -> list[list[float]]:
        """What the window holds, as plain JSON types."""
        return [list(pair) for pair in self._pairs]


class LiveErrors:
    """Error windows of the fleet, of each endpoint, and of a trivial predictor.

    The trivial predictor says the median of the last TTFTs, whatever the request: one that is no
    better has learned nothing.
    """

    def __init__(self) -> None:
        self.fleet = ErrorWindow(FLEET_ERROR_SAMPLES)
        self.trivial = ErrorWindow(FLEET_ERROR_SAMPLES)
        self._endpoints: dict[str, ErrorWindow] = {}
        self._median_s = stats.RollingQuantile(0.5, INTERVAL_WINDOW)
        self._factors = EndpointTable(np.array(UNKNOWN_FACTORS))
        self._changed: set[str] = set()  # since the table was last asked
        self._covered = utils.Rolling(stats.Mean, window_size=COVERAGE_WINDOW)

    def record(
        self, address: str, predicted_s: float, observed_s: float, *, alone: bool = False
    ) -> None:
        """What was predicted and what came, both above 0 and finite.

        Args:
            alone: it counts for the endpoint at *address*, and not for the fleet.
        """
        if address not in self._endpoints:
            self._endpoints[address] = ErrorWindow(ENDPOINT_ERROR_SAMPLES)
        own = self._endpoints[address]
        if not alone:
            self._record_of_fleet(address, predicted_s, observed_s)
        own.add(predicted_s, observed_s)
        self._changed.add(address)

    def _record_of_fleet(self, address: str, predicted_s: float, observed_s: float) -> None:
        low, high = self._factors_of(address)
        self._covered.update(float(predicted_s * low <= observed_s <= predicted_s * high))
        if len(self.fleet):
            self.trivial.add(float(self._median_s.get()), observed_s)
        self._median_s.update(observed_s)
        self.fleet.add(predicted_s, observed_s)

    def interval(self, endpoints: Sequence[Endpoint]) -> FloatArray:
        """Factors on each endpoint's prediction, low and high, [n, 2]."""
        if self._changed:
            self._factors.set_default(np.array(self._factors_of("")))
            for address in self._changed:
                if len(self._endpoints[address]) >= MIN_INTERVAL_SAMPLES:
                    self._factors.set(address, np.array(self._factors_of(address)))
            self._changed.clear()
        return self._factors.gather(endpoints)

    def of(self, address: str) -> ErrorWindow:
        """One endpoint's window; empty for one never heard of."""
        return self._endpoints.get(address) or ErrorWindow(ENDPOINT_ERROR_SAMPLES)

    @property
    def n_endpoints(self) -> int:
        """Endpoints of which anything is known."""
        return len(self._endpoints)

    @property
    def coverage_ratio(self) -> float | None:
        """Share of observations that fell into their interval; None before the first."""
        return float(self._covered.get()) if len(self.fleet) else None

    def forget(self, address: str) -> None:
        """The endpoint has left."""
        self._endpoints.pop(address, None)
        self._changed.discard(address)
        self._factors.drop(address)

    def state(self) -> dict[str, Any]:
        """The windows, as plain JSON types; what is derived from them is left out."""
        return {
            "fleet": self.fleet.pairs(),
            "trivial": self.trivial.pairs(),
            "endpoints": {a: window.pairs() for a, window in self._endpoints.items()},
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> LiveErrors:
        """Undo `state`.

        Raises:
            LookupError, TypeError, ValueError, ArithmeticError, AttributeError: it is not such a
                state.
        """
        errors = cls()
        errors.fleet = ErrorWindow(FLEET_ERROR_SAMPLES, state["fleet"])
        errors.trivial = ErrorWindow(FLEET_ERROR_SAMPLES, state["trivial"])
        for _, observed_s in state["fleet"]:
            errors._median_s.update(observed_s)
        for address, pairs in state["endpoints"].items():
            errors._endpoints[address] = ErrorWindow(ENDPOINT_ERROR_SAMPLES, pairs)
            errors._changed.add(address)
        return errors

    def _factors_of(self, address: str) -> tuple[float, float]:
        """Its own, or the fleet's while too little is known of it."""
        own = self._endpoints.get(address)
        if own is not None and len(own) >= MIN_INTERVAL_SAMPLES:
            return own.factors
        return self.fleet.factors if len(self.fleet) else UNKNOWN_FACTORS
