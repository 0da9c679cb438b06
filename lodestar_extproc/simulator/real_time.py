"""RealTimeEngine: an engine whose steps end when the event loop's clock says so.

It knows no HTTP: it tells each request's sink how many tokens there are.
"""

from __future__ import annotations

import asyncio
import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lodestar_extproc.simulator.engine import Engine, EngineGauges, EventKind


class TokenSink(Protocol):
    """Where the tokens of one request go."""

    def admitted(self, cached_tokens: int) -> None:
        """The first token is there; so much of the prompt was cached."""

    def tokens(self, generated: int) -> None:
        """So many tokens exist now; called at the end of each step, even without a new one."""

    def completed(self) -> None:
        """All tokens exist."""


class RealTimeEngine:
    """Runs *engine* on *loop*, *speed* times as fast as its accelerator.

    Steps end on time however late the loop is: after a stall several are made up for at once.
    """

    def __init__(
        self, engine: Engine, loop: asyncio.AbstractEventLoop, *, speed: float = 1.0
    ) -> None:
        self._engine = engine
        self._loop = loop
        self._speed = speed
        self._origin_s = loop.time()
        self._pumped_s = 0.0
        self._frozen = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = math.inf
        self._sinks: dict[int, TokenSink] = {}
        self._submitted = 0

    def submit(
        self,
        block_ids: NDArray[np.uint64],
        prompt_tokens: int,
        output_tokens: int,
        sink: TokenSink,
    ) -> int:
        """Start a request now; returns its number.

        Raises:
            EngineFull: too many are alive.
        """
        number = self._submitted
        self._engine.submit(number, block_ids, prompt_tokens, output_tokens, self._now_s())
        self._submitted += 1
        self._sinks[number] = sink
        self._arm()
        return number

    def abort(self, number: int) -> None:
        """Drop a request; nothing happens if it is over."""
        if self._sinks.pop(number, None) is not None:
            self._engine.abort(number)

    def gauges(self) -> EngineGauges:
        """What the metric page shows."""
        return self._engine.gauges()

    def in_flight(self) -> int:
        """Requests started and not ended."""
        return len(self._sinks)

    def slow_down(self, factor: float) -> None:
        """Make steps take *factor* times as long from the next on."""
        self._engine.slow_down(factor)

    def freeze(self) -> None:
        """Stop: requests are taken, none gets on."""
        if not self._frozen:
            self._pumped_s = self._now_s()
            self._frozen = True
            self.close()

    def thaw(self) -> None:
        """Go on as if no time had passed."""
        if self._frozen:
            self._frozen = False
            self._origin_s = self._loop.time() - self._pumped_s / self._speed
            self._arm()

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._timer_s = math.inf

    def _now_s(self) -> float:
        """The engine's time; a timer that fired early counts as on time."""
        if self._frozen:
            return self._pumped_s
        return max(self._pumped_s, (self._loop.time() - self._origin_s) * self._speed)

    def _arm(self) -> None:
        next_s = self._engine.next_event_s()
        if self._frozen or next_s == self._timer_s:
            return
        self.close()
        if next_s < math.inf:
            self._timer_s = next_s
            self._timer = self._loop.call_at(self._origin_s + next_s / self._speed, self._pump)

    def _pump(self) -> None:
        due_s, self._timer, self._timer_s = self._timer_s, None, math.inf
        self._pumped_s = max(self._now_s(), due_s)
        over = []
        for event in self._engine.advance(self._pumped_s):
            if event.kind == EventKind.COMPLETED:
                over.append(event.request)
            elif event.request in self._sinks:
                self._sinks[event.request].admitted(event.cached_tokens)
        for number, generated in self._engine.progress():
            if number in self._sinks:
                self._sinks[number].tokens(generated)
        for number in over:
            if number in self._sinks:
                self._sinks.pop(number).completed()
        self._arm()
