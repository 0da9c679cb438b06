"""Trust: whether the predictor may decide, in general and about each candidate.

It judges by what its own predictions were worth lately; it neither predicts nor chooses.
"""

from __future__ import annotations

import numpy as np

from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.decision import Reason
from lodestar_extproc.endpoint import FloatArray
from lodestar_extproc.features import N_FEATURES
from lodestar_extproc.learning.live_errors import ErrorWindow, LiveErrors
from lodestar_extproc.learning.sample import TrainingSample

REOPEN_RATIO = 0.8
"""Trust returns at this share of the error at which it was lost, so that it doesn't flicker.

A median of 50 errors is itself uncertain by a sixth.
"""
MIN_ENDPOINT_SAMPLES = 10
"""With fewer an endpoint is not judged alone: half of what its median error looks back on."""

Range = tuple[FloatArray, FloatArray]
"""Lowest and highest value of each feature, both [N_FEATURES]."""
Bounds = tuple[list[float], list[float]]
"""The same as plain floats."""


class Trust:
    """Judges by live error, with hysteresis, and by the range of what was learned."""

    def __init__(self, live: LiveSettings) -> None:
        self._live = live
        self._trusted = True
        self._doubtful: set[str] = set()
        self._range: Range | None = None
        self._bounds: Bounds = [], []
        self._limits: tuple[float, FloatArray] | None = None

    def weighs(self, n_samples: int) -> bool:
        """Whether errors count yet: those of the first guesses say nothing of later ones."""
        return n_samples >= max(1, self._live.current.burn_in_samples // 2)

    def learned(self, sample: TrainingSample) -> None:
        """The predictor has learned this row: rows like it are in range."""
        if self._range is None or _is_beyond(self._bounds, sample.features):
            self.widen(sample.features, sample.features)

    def widen(self, low: FloatArray, high: FloatArray) -> None:
        """Rows between these were learned, both [N_FEATURES]."""
        if self._range is None:
            self.adopt((low, high))
            return
        if _is_beyond(self._bounds, low) or _is_beyond(self._bounds, high):
            lowest, highest = self._range
            self.adopt((np.minimum(lowest, low), np.maximum(highest, high)))

    def update(self, address: str, errors: LiveErrors) -> None:
        """The errors of the fleet and of the endpoint at *address* have changed."""
        trivial = errors.trivial.error_ratio
        self._trusted = self._keeps(errors.fleet, trusted=self._trusted, trivial=trivial)
        own = errors.of(address)
        if len(own) < MIN_ENDPOINT_SAMPLES:
            return
        if self._keeps(own, trusted=address not in self._doubtful, trivial=None):
            self._doubtful.discard(address)
        else:
            self._doubtful.add(address)

    def judge(self, address: str, *, is_in_range: bool, n_samples: int) -> Reason:
        """MODEL if the predictor may choose the candidate at *address*, else why not.

        Args:
            is_in_range: whether its features lie within `limits`. Each candidate is judged by its
                own row: the others may be as strange as they like.
            n_samples: that the predictor has learned from.
        """
        reason = self.reason(n_samples)
        if reason is not Reason.MODEL:
            return reason
        if address in self._doubtful:
            return Reason.UNTRUSTED
        return Reason.MODEL if is_in_range else Reason.OUT_OF_RANGE

    def reason(self, n_samples: int) -> Reason:
        """MODEL, or why a predictor that learned from *n_samples* may not decide at all."""
        if n_samples < max(1, self._live.current.burn_in_samples):
            return Reason.BURN_IN
        return Reason.MODEL if self._trusted else Reason.UNTRUSTED

    def limits(self, extrapolation_ratio: float) -> FloatArray | None:
        """Lowest and highest of each feature that may be believed, [2, N_FEATURES].

        The same array until the range changes; None before any sample.

        Args:
            extrapolation_ratio: learned ranges that a feature may lie beyond what was learned.
        """
        if self._range is None:
            return None
        if self._limits is None or self._limits[0] != extrapolation_ratio:
            self._limits = extrapolation_ratio, _limits(self._range, extrapolation_ratio)
        return self._limits[1]

    def is_in_range(self, row: FloatArray, extrapolation_ratio: float) -> bool:
        """Whether a row of features, [N_FEATURES], lies within `limits`."""
        limits = self.limits(extrapolation_ratio)
        return limits is not None and not _is_beyond((limits[0].tolist(), limits[1].tolist()), row)

    def is_doubtful(self, address: str) -> bool:
        """Whether the endpoint's predictions were wrong lately."""
        return address in self._doubtful

    def is_alone(self, address: str, errors: LiveErrors) -> bool:
        """Whether the endpoint answers sooner than it can, and most others as predicted.

        Then its errors are no sign of a bad predictor: one liar must not take trust from a fleet.
        """
        if address not in self._doubtful or 2 * len(self._doubtful) > errors.n_endpoints:
            return False
        return errors.of(address).is_too_fast

    def forget(self, address: str) -> None:
        """The endpoint has left."""
        self._doubtful.discard(address)

    def state(self) -> list[list[float]] | None:
        """The learned range, lowest and highest of each feature; None before any sample."""
        if self._range is None:
            return None
        return [bound.tolist() for bound in self._range]

    @staticmethod
    def range_from(state: list[list[float]] | None) -> Range | None:
        """Undo `state`.

        Raises:
            TypeError, ValueError: it is not such a state.
        """
        if state is None:
            return None
        lowest, highest = np.array(state, dtype=np.float64).reshape(2, N_FEATURES)
        if not (np.isfinite(highest - lowest) & (highest >= lowest)).all():
            raise ValueError("a range without bounds")
        return lowest, highest

    def adopt(self, learned: Range | None) -> None:
        """Take this as the range of what was learned."""
        self._range, self._limits = learned, None
        self._bounds = ([], []) if learned is None else _bounds(*learned)

    def _keeps(self, window: ErrorWindow, *, trusted: bool, trivial: float | None) -> bool:
        """Whether trust is kept, or regained, at the error of *window*."""
        error, limit = window.error_ratio, self._live.current.trust_max_error_ratio
        if error is None:
            return trusted
        # Worse than the trivial predictor matters only for an error that could do harm.
        useless = trivial is not None and error > trivial and error > limit / 2
        return error <= (limit if trusted else REOPEN_RATIO * limit) and not useless


def _is_beyond(bounds: Bounds, row: FloatArray) -> bool:
    """Whether any feature of *row* lies outside its bounds, or is no number."""
    lowest, highest = bounds
    for low, value, high in zip(lowest, row.tolist(), highest, strict=True):
        if not low <= value <= high:  # half as long as all() would take
            return True
    return False


def _bounds(lowest: FloatArray, highest: FloatArray) -> Bounds:
    return lowest.tolist(), highest.tolist()


def _limits(learned: Range, extrapolation_ratio: float) -> FloatArray:
    """Of each feature: the range, widened on both sides by so many times its span."""
    lowest, highest = learned
    span = highest - lowest
    # A feature that never varied tells nothing: no predictor gave it a weight of its own.
    margin = np.where(span > 0, extrapolation_ratio * span, np.inf)
    return np.array([lowest - margin, highest + margin])
