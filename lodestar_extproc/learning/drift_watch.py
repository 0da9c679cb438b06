"""DriftWatch: notices that an endpoint has changed, from the errors of its predictions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from river import drift, stats

MIN_BIAS = 0.2
"""A change after which predictions are this near to right (log scale) is the model improving."""
BIAS_MEMORY_SAMPLES = 8
CHECK_EVERY = 2


@dataclass(slots=True)
class _Watch:
    """ADWIN says that the error has changed, the bias whether it has changed for the worse."""

    adwin: drift.ADWIN = field(default_factory=lambda: drift.ADWIN(clock=CHECK_EVERY))
    bias: stats.EWMean = field(default_factory=lambda: stats.EWMean(1 / BIAS_MEMORY_SAMPLES))


class DriftWatch:
    """One ADWIN an endpoint (Bifet and Gavaldà 2007) on log(observed/predicted).

    Attributes:
        counts: drifts noticed, by address.
    """

    def __init__(self) -> None:
        self._watches: dict[str, _Watch] = {}
        self.counts: dict[str, int] = {}

    def has_changed(self, address: str, predicted_s: float, observed_s: float) -> bool:
        """Take in one pair; True when the endpoint is no longer what it was."""
        watch = self._watches.get(address)
        if watch is None:
            watch = self._watches[address] = _Watch()
        log_ratio = math.log(observed_s / predicted_s)
        watch.adwin.update(log_ratio)
        watch.bias.update(log_ratio)
        if not (watch.adwin.drift_detected and abs(watch.bias.get()) > MIN_BIAS):
            return False
        # The detector's window still holds the past, and would go on shrinking: begin anew.
        del self._watches[address]
        self.counts[address] = self.counts.get(address, 0) + 1
        return True

    def forget(self, address: str) -> None:
        """The endpoint has left."""
        self._watches.pop(address, None)
        self.counts.pop(address, None)
