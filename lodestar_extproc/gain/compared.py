"""Comparison of what was decided with what another policy would have chosen: ComparedRequests.

The estimate is `replay`'s direct one: each request alone, in the state that the decisions made had
brought about, by the predictions that were made then. Here each endpoint's predictions are first
set right by how far off they were where requests did go there.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

WINDOW = 2000
"""Requests that are looked back on: minutes of a busy pool."""
MIN_COMPARED = 200
"""With fewer nothing is said."""
MIN_APART = 30
"""Where both choose alike there is nothing to tell; of fewer differences no interval is honest."""
MIN_SERVED = 10
"""Requests that an endpoint served, for its predictions to be set right."""
N_BATCHES = 20
"""Neighbours in time are alike: the error is that of the means of so many stretches."""
T_95 = 2.093  # Student's, two-sided 95 %, of N_BATCHES - 1 degrees of freedom


class Compared(NamedTuple):
    """One request: who served it, and whom another policy would have chosen."""

    served: str
    other: str
    observed_s: float
    predicted_served_s: float
    predicted_other_s: float


@dataclass(frozen=True, slots=True)
class Gain:
    """What was decided beside what *policy* would have given.

    Attributes:
        role: `fallback`, `shadow`, or `decided` in a pool whose decisions Envoy does not follow.
        made_s: mean observed TTFT; NaN of nothing.
        other_s: the mean that *policy* is estimated to have given; None where it cannot be told.
        ratio, low, high: of the faster mean, *made_s* over *other_s*, with the 95 % interval.
        unknown: why nothing can be told; empty where something can.
    """

    policy: str
    role: str
    requests: int
    agreement_ratio: float
    made_s: float
    other_s: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    unknown: str = ""

    @property
    def verdict(self) -> str:
        """In words."""
        if self.ratio is None or self.low is None or self.high is None:
            return f"cannot tell: {self.unknown}"
        if self.low <= 1.0 <= self.high:
            return "no difference that can be told from chance"
        if self.ratio < 1.0:
            return f"the decisions made are {1.0 - self.ratio:.0%} faster"
        return f"the decisions made are {self.ratio - 1.0:.0%} slower"


class ComparedRequests:
    """The last requests, beside what one other policy would have done with them."""

    def __init__(self) -> None:
        self._requests: deque[Compared] = deque(maxlen=WINDOW)

    def add(self, compared: Compared) -> None:
        """One more."""
        self._requests.append(compared)

    def gain(self, policy: str, role: str) -> Gain:
        """What can be told of them."""
        n = len(self._requests)
        apart = sum(each.served != each.other for each in self._requests)
        made_s = sum(r.observed_s for r in self._requests) / n if n else math.nan
        known = Gain(policy, role, n, 1.0 - apart / n if n else math.nan, made_s)
        unknown = self._unknown(n, apart)
        if unknown:
            return replace(known, unknown=unknown)
        difference_s, error_s = self._difference_s()
        other_s = made_s + difference_s
        if other_s - error_s <= 0:
            return replace(known, unknown="the predictions vary too much")
        return replace(
            known,
            other_s=other_s,
            ratio=made_s / other_s,
            low=made_s / (other_s + error_s),
            high=made_s / (other_s - error_s),
        )

    def _unknown(self, n: int, apart: int) -> str:
        if n < MIN_COMPARED:
            return f"{n} requests were compared, and it takes {MIN_COMPARED}"
        if apart < MIN_APART:
            return f"both chose alike but for {apart} requests, and it takes {MIN_APART}"
        served: dict[str, int] = {}
        for each in self._requests:
            served[each.served] = served.get(each.served, 0) + 1
        strange = {e.other for e in self._requests if served.get(e.other, 0) < MIN_SERVED}
        if strange:
            return f"too few requests went to {', '.join(sorted(strange)[:3])} to know its speed"
        return ""

    def _difference_s(self) -> tuple[float, float]:
        """Mean seconds that the other's choices would have taken longer, and half of its interval.

        With b the observed over the predicted of an endpoint, a request's difference is
        b·(predicted) of the other less that of who served. The error is that of batch means, and
        that of each b, which all requests with that endpoint share.
        """
        names = sorted({r.served for r in self._requests} | {r.other for r in self._requests})
        index = {name: i for i, name in enumerate(names)}
        served = np.array([index[r.served] for r in self._requests])
        other = np.array([index[r.other] for r in self._requests])
        observed, predicted, predicted_other = (
            np.array(column) for column in list(zip(*self._requests, strict=True))[2:]
        )
        right, right_error = _calibration(served, observed, predicted, len(names))
        difference = right[other] * predicted_other - right[served] * predicted
        batches = [batch.mean() for batch in np.array_split(difference, N_BATCHES)]
        variance = float(np.var(batches, ddof=1)) / N_BATCHES
        weight_of_other = np.bincount(other, predicted_other, len(names))
        weight_of_served = np.bincount(served, predicted, len(names))
        shared = (weight_of_other - weight_of_served) / len(difference) * right_error
        error = T_95 * math.sqrt(variance + float(np.sum(shared**2)))
        return float(difference.mean()), error


def _calibration(
    served: np.ndarray, observed: np.ndarray, predicted: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Observed over predicted of each endpoint, and the standard error of that ratio of means."""
    count = np.maximum(np.bincount(served, minlength=n), 1)
    seen = np.bincount(served, observed, n) / count
    said = np.maximum(np.bincount(served, predicted, n) / count, 1e-9)
    right = seen / said
    off = (observed - right[served] * predicted) ** 2
    error = np.sqrt(np.bincount(served, off, n)) / count / said
    return right, error
