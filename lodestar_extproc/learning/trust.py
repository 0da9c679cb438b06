"""Trust: whether the model may decide, in general and about each candidate.

It judges by what the model's own predictions were worth lately; it neither predicts nor chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lodestar_extproc.decision import Reason
from lodestar_extproc.endpoint import Endpoint, FloatArray
from lodestar_extproc.features import N_FEATURES, FeatureMatrix
from lodestar_extproc.learning.live_errors import ErrorWindow, LiveErrors
from lodestar_extproc.sample import TrainingSample

REOPEN_RATIO = 0.8
"""Trust returns at this share of the error at which it was lost, so that it doesn't flicker."""
MIN_ENDPOINT_SAMPLES = 10
"""With fewer an endpoint is not judged alone."""

BoolArray = NDArray[np.bool_]
Range = tuple[FloatArray, FloatArray]
"""Lowest and highest value of each feature, both [N_FEATURES]."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the model's word is worth on one request.

    Attributes:
        reason: MODEL, or why the model may not decide at all.
        doubtful: [n_endpoints], its predictions of this endpoint were wrong lately.
        outside: [n_endpoints], this candidate is unlike anything learned.
    """

    reason: Reason
    doubtful: BoolArray
    outside: BoolArray

    def on(self, index: int) -> Reason:
        """MODEL if it may choose the candidate at *index*, else why not."""
        if self.reason is not Reason.MODEL:
            return self.reason
        if self.doubtful[index]:
            return Reason.UNTRUSTED
        return Reason.OUT_OF_RANGE if self.outside[index] else Reason.MODEL


class Trust:
    """Judges by live error, with hysteresis, and by the range of what was learned.

    Args:
        burn_in_samples: to learn from before the model may decide.
        max_error_ratio: median relative error above which it may not.
    """

    def __init__(self, *, burn_in_samples: int = 50, max_error_ratio: float = 0.5) -> None:
        self._burn_in_samples = burn_in_samples
        self._max_error_ratio = max_error_ratio
        self._trusted = True
        self._doubtful: set[str] = set()
        self._range: Range | None = None

    def weighs(self, n_samples: int) -> bool:
        """Whether errors count yet: those of a model's first guesses say nothing of it later."""
        return n_samples >= max(1, self._burn_in_samples // 2)

    def judge_by(self, *, burn_in_samples: int, max_error_ratio: float) -> None:
        """Judge by new bounds from now on."""
        self._burn_in_samples = burn_in_samples
        self._max_error_ratio = max_error_ratio

    def learned(self, sample: TrainingSample) -> None:
        """The model has seen this row: rows like it are in range."""
        row = sample.features
        lowest, highest = (row, row) if self._range is None else self._range
        self._range = np.minimum(lowest, row), np.maximum(highest, row)

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

    def judge(
        self,
        features: FeatureMatrix,
        endpoints: Sequence[Endpoint],
        n_samples: int,
        extrapolation_ratio: float,
    ) -> Verdict:
        """What the model's word is worth on this request, learned from *n_samples*."""
        doubtful = np.array([e.address in self._doubtful for e in endpoints], dtype=np.bool_)
        outside = self._outside(features.values, extrapolation_ratio)
        return Verdict(self.reason(n_samples), doubtful, outside)

    def reason(self, n_samples: int) -> Reason:
        """MODEL, or why a model that learned from *n_samples* may not decide at all."""
        if n_samples < max(1, self._burn_in_samples):
            return Reason.BURN_IN
        return Reason.MODEL if self._trusted else Reason.UNTRUSTED

    def is_doubtful(self, address: str) -> bool:
        """Whether the endpoint's predictions were wrong lately."""
        return address in self._doubtful

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
        return lowest, highest

    def adopt(self, learned: Range | None) -> None:
        """Take the range of a model that was learned earlier."""
        self._range = learned

    def _keeps(self, window: ErrorWindow, *, trusted: bool, trivial: float | None) -> bool:
        """Whether trust is kept, or regained, at the error of *window*."""
        error, limit = window.error_ratio, self._max_error_ratio
        if error is None:
            return trusted
        # Worse than the trivial predictor matters only for an error that could do harm.
        useless = trivial is not None and error > trivial and error > limit / 2
        return error <= (limit if trusted else REOPEN_RATIO * limit) and not useless

    def _outside(self, values: FloatArray, extrapolation_ratio: float) -> BoolArray:
        if self._range is None:
            return np.ones(len(values), dtype=np.bool_)
        lowest, highest = self._range
        span = highest - lowest
        # A feature that never varied tells nothing, and no model gave it a weight of its own.
        margin = np.where(span > 0, extrapolation_ratio * span, np.inf)
        inside = (values >= lowest - margin) & (values <= highest + margin)
        return np.logical_not(inside.all(axis=1))
