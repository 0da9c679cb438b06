"""Rack: engines that are advanced together, and looked at together, in one compiled call each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lodestar_extproc.simulator import sweep
from lodestar_extproc.simulator.engine import Engine
from lodestar_extproc.simulator.state import EVENT

RackEvent = tuple[int, int, int, float, int]
"""The engine's number, and an `EngineEvent` of it."""


class Rack:
    """Engines by number. It owns none of them: whatever else is done to one is seen here.

    For an engine with a step or two to do, a call costs about as much as what it computes.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = tuple(engines)  # which own what lies at the addresses
        self._addresses = np.array([engine.address for engine in engines], np.int64)
        # Room for all that can happen to any one of them.
        most = max(engine.spec.max_live_requests for engine in engines)
        self._events = np.zeros(2 * most, EVENT)
        self._gauges = np.zeros((len(engines), 6))

    def advance(self, until_s: float) -> list[RackEvent]:
        """Run all to *until_s*, inclusive; returns what happened, by engine and then by time."""
        happened: list[RackEvent] = []
        reached = 0
        while reached < len(self._addresses):
            n_events, reached = sweep.sweep(self._addresses, self._events, until_s, reached)
            if n_events:
                happened += self._events[:n_events].tolist()
        return happened

    def next_event_s(self) -> float:
        """When a step of any of them ends or starts next; inf while there is nothing to do."""
        return float(sweep.soonest_s(self._addresses))

    def gauges(self) -> list[list[float]]:
        """What a scrape of each would read now: requests running and waiting, KV usage, tokens.

        The usage is 0 to 1; the tokens are all that were generated, looked up and found.
        """
        sweep.read_gauges(self._addresses, self._gauges)
        gauges: list[list[float]] = self._gauges.tolist()
        return gauges
