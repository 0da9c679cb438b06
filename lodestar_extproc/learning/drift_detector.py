"""DriftDetector: notices that an endpoint has changed, from the errors of its predictions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from river import stats

from lodestar_extproc.learning.lazy_imports import lazily

with lazily("river.drift.datasets", "scipy.stats"):
    # Its data sets and a test of distributions: 55 MiB, and two thirds of the CPU of a start.
    from river import drift

MIN_BIAS = 0.2
"""Of log(observed/predicted), some 20 %: about the noise of a TTFT (see `labels.precision`).

A change of the error after which it is nearer to 0 is the predictor improving.
"""
BIAS_MEMORY_SAMPLES = 8
"""Their fading mean has a quarter of the noise of one, and follows as quickly as ADWIN notices."""
CHECK_EVERY_SAMPLES = 2
"""River's default is 32: half a minute of an endpoint's traffic, where two are seconds."""


@dataclass(slots=True)
class _EndpointDetector:
    """ADWIN says that the error has changed, the bias whether it has changed for the worse."""

    adwin: drift.ADWIN = field(default_factory=lambda: drift.ADWIN(clock=CHECK_EVERY_SAMPLES))
    bias: stats.EWMean = field(default_factory=lambda: stats.EWMean(1 / BIAS_MEMORY_SAMPLES))


class DriftDetector:
    """One ADWIN an endpoint (Bifet and Gavaldà 2007) on log(observed/predicted).

    Attributes:
        counts: drifts noticed, by address.
    """

    def __init__(self) -> None:
        self._detectors: dict[str, _EndpointDetector] = {}
        self.counts: dict[str, int] = {}

    def update(self, address: str, predicted_s: float, observed_s: float) -> bool:
        """Take in one pair; whether it shows that the endpoint is no longer what it was."""
        detector = self._detectors.get(address)
        if detector is None:
            detector = self._detectors[address] = _EndpointDetector()
        log_ratio = math.log(observed_s / predicted_s)
        detector.adwin.update(log_ratio)
        detector.bias.update(log_ratio)
        if not (detector.adwin.drift_detected and abs(detector.bias.get()) > MIN_BIAS):
            return False
        # The detector's window still holds the past, and would go on shrinking: begin anew.
        del self._detectors[address]
        self.counts[address] = self.counts.get(address, 0) + 1
        return True

    def forget(self, address: str) -> None:
        """The endpoint has left."""
        self._detectors.pop(address, None)
        self.counts.pop(address, None)
