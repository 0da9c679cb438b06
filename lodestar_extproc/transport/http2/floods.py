"""Allowance: how much of what is harmless once a client may send; more than that is a flood."""

from __future__ import annotations

from collections.abc import Callable

EMPTY_BURST, EMPTY_PER_S = 2_000, 200.0
"""Frames that bring nothing: pings, settings, priorities, unknown ones, empty DATA. A mesh pings
once in seconds, Envoy sets once; ten thousand a second are what floods send (CVE-2019-9512, 9515,
9518). Each DATA that brings something allows one more: gRPC's client for Go pings with every
answer, to learn how much is on its way (`bdp_estimator.go`). Judgements."""
RESET_BURST, RESET_PER_S = 500, 50.0
"""Streams that end in a reset before a whole message came, or by a fault of the client's: an Envoy
sends its message with the headers, so that it does so hardly ever (CVE-2023-44487, CVE-2025-8671).
Judgements."""


class Allowance:
    """A bucket of *burst* that fills again by *per_s*.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, burst: int, per_s: float, clock: Callable[[], float]) -> None:
        self._burst = burst
        self._per_s = per_s
        self._clock = clock
        self._left = float(burst)
        self._at_s = clock()

    def give(self) -> None:
        """Allow one more, up to the burst."""
        if self._left < self._burst:
            self._left += 1.0

    def take(self) -> bool:
        """Whether one more is allowed."""
        if self._left < 1.0:
            now_s = self._clock()
            self._left = min(self._burst, self._left + self._per_s * (now_s - self._at_s))
            self._at_s = now_s
            if self._left < 1.0:
                return False
        self._left -= 1.0
        return True
