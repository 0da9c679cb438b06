"""DriftWatch: notices that an endpoint has changed, from the errors of its predictions."""

from __future__ import annotations

import math

from river import drift

MIN_BIAS = 0.15
"""A change that leaves the log error nearer to 0 than this is the model getting better."""
CHECK_EVERY = 4


class DriftWatch:
    """One ADWIN an endpoint (Bifet and Gavaldà 2007) on log(observed/predicted).

    Attributes:
        counts: drifts noticed, by address.
    """

    def __init__(self) -> None:
        self._detectors: dict[str, drift.ADWIN] = {}
        self.counts: dict[str, int] = {}

    def has_changed(self, address: str, predicted_s: float, observed_s: float) -> bool:
        """Take in one pair; True when the endpoint is no longer what it was."""
        detector = self._detectors.get(address)
        if detector is None:
            detector = self._detectors[address] = drift.ADWIN(clock=CHECK_EVERY)
        detector.update(math.log(observed_s / predicted_s))
        if not (detector.drift_detected and abs(detector.estimation) > MIN_BIAS):
            return False
        del self._detectors[address]
        self.counts[address] = self.counts.get(address, 0) + 1
        return True

    def forget(self, address: str) -> None:
        """The endpoint has left."""
        self._detectors.pop(address, None)
        self.counts.pop(address, None)
