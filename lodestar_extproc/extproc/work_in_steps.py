"""WorkInSteps: long work on the event loop, between whose steps others have their turn.

It knows neither what the work is nor for whom.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator

from lodestar_extproc.extproc.budget import MAX_WAIT_S, MAX_WORK_S, Limit, OverBudget

TURN_S = 0.001
"""So long others wait at most for a turn of ours, beside one step: a tenth of what they may."""
SHORT_S = 0.005
"""Work up to here never waits for longer work: an honest body of half a MiB. Not tuned."""

Steps = Generator[None, None, None]


class WorkInSteps:
    """Does the work of all streams; of long pieces one at a time.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._long = asyncio.Lock()

    def at_once(self, steps: Steps) -> bool:
        """Do *steps* within one turn; whether all is done, else `work` does the rest."""
        began_at_s = self._clock()
        return all(self._clock() - began_at_s < TURN_S for _ in steps)

    async def work(self, steps: Steps) -> None:
        """Do *steps*. What takes too long is told so, by OverBudget, and ended."""
        came_at_s = self._clock()
        if await self._work(steps, SHORT_S, came_at_s):
            return
        async with self._long:
            if not await self._work(steps, MAX_WORK_S, came_at_s):
                _end(steps)

    async def _work(self, steps: Steps, most_s: float, came_at_s: float) -> bool:
        """Work for *most_s* at most; whether all is done."""
        worked_s, began_at_s = 0.0, self._clock()
        for _ in steps:
            now_s = self._clock()
            if now_s - began_at_s < TURN_S:
                continue
            worked_s += now_s - began_at_s
            if worked_s > most_s or now_s - came_at_s > MAX_WAIT_S:
                return False
            await asyncio.sleep(0)
            began_at_s = self._clock()
        return True


def _end(steps: Steps) -> None:
    try:
        steps.throw(OverBudget(Limit.TIME))
    except StopIteration:
        return
    steps.close()
