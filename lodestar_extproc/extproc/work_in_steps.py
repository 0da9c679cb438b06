"""WorkInSteps: long work on the event loop, between whose steps others have their turn.

It knows neither what the work is nor for whom; one piece is done at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator

from lodestar_extproc.extproc.budget import Limit, OverBudget

TURN_S = 0.001
"""So long others wait at most for a turn of ours, beside one step: a tenth of what they may."""
MAX_WORK_S = 0.2
"""Of one piece of work, waiting for those before it apart."""
MAX_WAIT_S = 0.3
"""From its coming to its end. Envoy waits 0.5 s for a reply in the files that are shipped
(`message_timeout`), and goes on without one then."""

Steps = Generator[None, None, None]


class WorkInSteps:
    """Does the work of all streams, one piece after another.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._turn = asyncio.Lock()

    async def work(self, steps: Steps | None) -> None:
        """Do *steps*; None is no work. What takes too long is told so, by OverBudget, and ended."""
        if steps is None:
            return
        came_at_s = self._clock()
        async with self._turn:
            await self._work(steps, came_at_s)

    async def _work(self, steps: Steps, came_at_s: float) -> None:
        worked_s, began_at_s = 0.0, self._clock()
        for _ in steps:
            now_s = self._clock()
            if now_s - began_at_s < TURN_S:
                continue
            worked_s += now_s - began_at_s
            if worked_s > MAX_WORK_S or now_s - came_at_s > MAX_WAIT_S:
                _end(steps)
                return
            await asyncio.sleep(0)
            began_at_s = self._clock()


def _end(steps: Steps) -> None:
    try:
        steps.throw(OverBudget(Limit.TIME))
    except StopIteration:
        return
    steps.close()
