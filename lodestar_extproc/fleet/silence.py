"""Silence: finds endpoints that owe first tokens, or the rest of answers, while others deliver."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.endpoint import Endpoint, FloatArray
from lodestar_extproc.fleet.health import Health
from lodestar_extproc.fleet.load import InFlightRequest, LoadTable
from lodestar_extproc.fleet.stalls import StallDetector

JUDGING_INTERVAL_S = 0.1
"""How often silence is looked at: it lasts for seconds before it means anything."""
FROZEN_S_PER_TOKEN = 1e-3
"""Patience for a long prompt, four times slower than the slowest accelerator calibrated."""


class Silence:
    """Judges the endpoints of one fleet, and tells their health.

    Args:
        stalls: knows which answers have stopped.
    """

    def __init__(
        self, live: LiveSettings, load: LoadTable, health: Health, stalls: StallDetector
    ) -> None:
        self._live = live
        self._load = load
        self._health = health
        self._stalls = stalls
        self._judged_at_s = float("-inf")
        self._written_off: dict[str, set[int]] = {}

    def judge(
        self, endpoints: Sequence[Endpoint], in_flight: Iterable[InFlightRequest], at_s: float
    ) -> None:
        """Look at all of *endpoints*, the columns of the load table, if it is time to."""
        if at_s < self._judged_at_s + JUDGING_INTERVAL_S:
            return
        self._judged_at_s = at_s
        if self._load.longest_silence_s(at_s) > self._live.current.frozen_after_s:
            self._judge_prefills(endpoints, at_s)
        if self._stalls.has_evidence:
            self._judge_answers(endpoints, in_flight, at_s)

    def n_written_off(self, address: str, in_flight: Iterable[InFlightRequest]) -> int:
        """Of *in_flight*, those at *address* that were given up when it stood still."""
        written_off = self._written_off.get(address)
        if not written_off:
            return 0
        alive = {id(f) for f in in_flight if f.address == address}
        written_off &= alive
        return len(written_off)

    def forget(self, address: str) -> None:
        """The endpoint has left."""
        self._written_off.pop(address, None)
        self._stalls.forget(address)

    def _judge_prefills(self, endpoints: Sequence[Endpoint], at_s: float) -> None:
        silent = self._load.silent_s(at_s) > self._patience_s()
        # When every endpoint is silent the cause lies elsewhere: keep them all.
        if not silent.all():
            for column in np.flatnonzero(silent).tolist():
                self._health.froze(endpoints[column].address)

    def _judge_answers(
        self, endpoints: Sequence[Endpoint], in_flight: Iterable[InFlightRequest], at_s: float
    ) -> None:
        decodes = self._load.decodes()
        for endpoint, patience_s, n in zip(endpoints, self._patience_s(), decodes, strict=True):
            address = endpoint.address
            if n > 0 and self._stalls.stands_still(address, at_s, float(patience_s)):
                self._health.stalled(address, at_s)
                self._stalls.taken_out(address, at_s)
                self._written_off[address] = {id(f) for f in in_flight if f.address == address}

    def _patience_s(self) -> FloatArray:
        """By endpoint: a long prompt may stand before all else."""
        frozen_after_s = self._live.current.frozen_after_s
        patience_s: FloatArray = (
            frozen_after_s + FROZEN_S_PER_TOKEN * self._load.head_uncached_tokens()
        )
        return patience_s
