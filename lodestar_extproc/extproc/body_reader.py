"""BodyReader: has each long body read where that holds up others least.

The same code reads it here, in steps, and in the reader process.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from lodestar_extproc.extproc.reader_process import ReaderProcess
from lodestar_extproc.extproc.unread_body import UnreadBody
from lodestar_extproc.extproc.work_in_steps import WorkInSteps

AWAY_BYTES = 128 * 2**10
"""From here on another process reads a body: here that takes 0.3 to 1.5 ms of the loop, and asking
0.1 to 0.2, however long it is (`make bench-body-cost`)."""
NEAR_BYTES = 64 * 2**10
"""The process is begun at the first body of this size: prompts of agents grow turn by turn, so it
is there when they are longer, and costs nothing where they are short. A judgement."""


class BodyReader:
    """Reads for all streams.

    Args:
        process: reads long ones, while it runs.
        clock: monotonic seconds.
    """

    def __init__(self, process: ReaderProcess, clock: Callable[[], float]) -> None:
        self._process = process
        self._in_steps = WorkInSteps(clock)

    def begin(self, body: UnreadBody | None) -> Coroutine[Any, Any, None] | None:
        """Have *body* read within this turn; None once it is, else what does the rest."""
        if body is None:
            return None
        if len(body.content) >= NEAR_BYTES:
            return self.read(body)
        steps = body.steps()
        return None if self._in_steps.at_once(steps) else self._in_steps.work(steps)

    async def read(self, body: UnreadBody | None) -> None:
        """Have *body* read; None is nothing to read."""
        if body is None:
            return
        n_bytes = len(body.content)
        if n_bytes >= NEAR_BYTES:
            self._process.want()
        if n_bytes >= AWAY_BYTES:
            says = await self._process.read(body.content, body.kind)
            if says is not None:
                body.settle(says)
                return
        await self._in_steps.work(body.steps())
