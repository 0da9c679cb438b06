"""Penalties: what an endpoint's recent failures add to the cost of choosing it.

A failure is no TTFT: to learn it as one would teach that the prompt was slow, everywhere.
"""

from __future__ import annotations

import math
from collections.abc import KeysView, Sequence

import numpy as np

from lodestar_extproc.endpoint import Endpoint, FloatArray

FAILURE_PENALTY_S = 2.0
"""More than endpoints differ by in cost below saturation: others come first (decision 0006)."""
MAX_PENALTY_S = 30.0
"""That of fifteen failures: however many there were, nothing of it is left after a minute."""
DECAY_S = 10.0
"""Longer than a first ejection, a second: who comes back is not at once the first choice."""


class Penalties:
    """Seconds added for each failure, fading with time constant `DECAY_S`."""

    def __init__(self) -> None:
        self._given: dict[str, tuple[float, float]] = {}

    @property
    def addresses(self) -> KeysView[str]:
        """Of the endpoints that failed, whatever is left of it."""
        return self._given.keys()

    def add(self, address: str, at_s: float) -> None:
        """The endpoint has failed a request."""
        penalty_s = self._of(address, at_s) + FAILURE_PENALTY_S
        self._given[address] = (min(penalty_s, MAX_PENALTY_S), at_s)

    def pardon(self, address: str) -> None:
        """One failure of the endpoint was none."""
        penalty_s, given_at_s = self._given.get(address, (0.0, 0.0))
        self._given[address] = (max(0.0, penalty_s - FAILURE_PENALTY_S), given_at_s)

    def at(self, endpoints: Sequence[Endpoint], at_s: float) -> FloatArray | None:
        """Seconds to add to each endpoint's cost, [n]; None where no failure is known."""
        if not self._given:
            return None
        return np.array([self._of(e.address, at_s) for e in endpoints])

    def forget(self, address: str) -> None:
        """The endpoint has left."""
        self._given.pop(address, None)

    def _of(self, address: str, at_s: float) -> float:
        penalty_s, given_at_s = self._given.get(address, (0.0, at_s))
        return penalty_s * math.exp(-max(0.0, at_s - given_at_s) / DECAY_S)
