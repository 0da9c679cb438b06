"""Turns: lets requests that are held go when their turn has come. It routes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lodestar_extproc.extproc.held_turn import HeldTurn, TurnQueue, TurnTicket

LOOK_S = 0.005
"""So often it is asked whose turn it is, while any request is held; the answer costs nothing unless
a first token, an end or a new member came in between."""


class Turns:
    """Lets the requests of all streams go in turn.

    Should a look fail, each goes on by itself a little after the limit of its ticket.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waiting: dict[TurnTicket, tuple[TurnQueue, asyncio.Event]] = {}
        self._next_look: asyncio.Handle | None = None
        self._lets_all_go = False

    def let_all_go(self) -> None:
        """Hold nothing from now on: the service ends."""
        self._lets_all_go = True
        for _, came in self._waiting.values():
            came.set()

    async def wait(self, turn: HeldTurn) -> None:
        """Return when it is its turn; a stream that is cut meanwhile leaves the queue."""
        ticket, queue = turn.ticket, turn.queue
        came = asyncio.Event()
        self._waiting[ticket] = queue, came
        # At once: with it in the queue it may be the turn of another.
        self._look_in(0.0)
        try:
            if not self._lets_all_go:
                async with asyncio.timeout(ticket.limit_at_s - self._clock() + 2 * LOOK_S):
                    await came.wait()
        except TimeoutError:
            pass
        finally:
            del self._waiting[ticket]
            queue.withdraw(ticket)

    def _look_in(self, s: float) -> None:
        if self._next_look is not None:
            self._next_look.cancel()
        loop = asyncio.get_running_loop()
        # Whoever was called is woken before a callback that is registered after.
        self._next_look = loop.call_later(s, self._look) if s else loop.call_soon(self._look)

    def _look(self) -> None:
        """Call the next of each queue, and look again: at once, once those called have left."""
        self._next_look, again_s = None, LOOK_S
        try:
            for queue in {queue: None for queue, _ in self._waiting.values()}:
                ticket = queue.next_turn(self._clock())
                if ticket is not None and ticket in self._waiting:
                    self._waiting[ticket][1].set()
                    again_s = 0.0
        finally:
            if self._waiting:
                self._look_in(again_s)
