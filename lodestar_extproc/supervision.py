"""Supervisor: keeps what goes on beside the requests going, whatever goes wrong in it.

A task that fails is counted, told once for each kind of failure, and begun anew after a pause.
None of them ends the process, or ends without a word.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

FIRST_PAUSE_S = 1.0
"""Before a task begins anew: what failed for a moment is over by then."""
LONGEST_PAUSE_S = 30.0
"""What fails each time costs two attempts a minute; what is mended is noticed within as long."""
MAX_KINDS = 200
"""Kinds of failures that are remembered as told; there are no more places to fail at than that."""
_log = logging.getLogger(__name__)


class BackgroundTask(StrEnum):
    """What goes on beside the requests."""

    CONFIGURATION = "configuration"
    DISCOVERY = "discovery"
    SCRAPING = "scraping"
    PROBING = "probing"
    KV_EVENTS = "kv_events"
    EXPIRY = "expiry"
    CHECKPOINT = "checkpoint"
    JOURNAL = "journal"
    READINESS = "readiness"
    LOOP_LAG = "loop_lag"
    EVENTS = "events"
    REPLICAS = "replicas"
    READER = "reader"
    WORKER = "worker"
    OTHER = "other"


class Supervisor:
    """Where failures of background tasks end.

    Args:
        count: told of each failure, by the task's name.
        sleep: waits so many seconds.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        count: Callable[[str], None] = lambda _: None,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._count = count
        self._sleep = sleep
        self._clock = clock
        self._told: set[tuple[str, str]] = set()

    async def keep(self, task: BackgroundTask, work: Callable[[], Awaitable[None]]) -> None:
        """Do *work* to its end, or until cancelled; begin it anew whenever it fails."""
        pause_s = FIRST_PAUSE_S
        while True:
            began_s = self._clock()
            try:
                await work()
            except asyncio.CancelledError as error:
                if _is_cancelled():
                    raise
                # A library may give up by a cancellation of its own, which is meant for nobody.
                self.caught(task, error)
            except Exception as error:  # noqa: BLE001  (the edge of every background task)
                self.caught(task, error)
            else:
                return
            if self._clock() - began_s > LONGEST_PAUSE_S:
                pause_s = FIRST_PAUSE_S
            await self._sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    @contextmanager
    def catching(self, task: BackgroundTask) -> Iterator[None]:
        """Around a part of *task* whose failure is to cost that part only."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  (the edge of it)
            self.caught(task, error)

    def caught(self, task: BackgroundTask, error: BaseException) -> None:
        """Count *error*, and tell it if it is the first of its kind."""
        self._count(task)
        kind = (task, _kind(error))
        if kind in self._told:
            _log.debug("%s failed again: %r", task, error)
            return
        if len(self._told) < MAX_KINDS:
            self._told.add(kind)
        _log.error(
            "%s failed: %r; requests are served on, it goes on by itself, and the same failure is "
            "only counted from now on. Please report it",
            task,
            error,
            exc_info=error,
        )

    def heed(self, _loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        """What no task of ours can catch; for `loop.set_exception_handler`."""
        error = context.get("exception")
        if isinstance(error, BaseException):
            self.caught(BackgroundTask.OTHER, error)
        else:
            self._count(BackgroundTask.OTHER)
            _log.error("event loop: %s", context.get("message"))


def _is_cancelled() -> bool:
    """Whether somebody wants the present task to end."""
    present = asyncio.current_task()
    return present is None or present.cancelling() > 0


def _kind(error: BaseException) -> str:
    """What failed and where; its words may be others each time."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    places = traceback.extract_tb(error.__traceback__)[-1:]
    return " ".join([type(error).__name__, *(f"{each.filename}:{each.lineno}" for each in places)])
