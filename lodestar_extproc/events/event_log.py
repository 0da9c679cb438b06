"""EventLog: the last events, and the lines of the log that tell them."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

from lodestar_extproc.events.change import ChangeKind, Severity, StateChange

CAPACITY = 500
"""Events kept for `/events` and the page. A judgement: a bad day of a fleet, some 150 kB."""
LINES_AT_ONCE, LINES_PER_S = 100, 1.0
"""Of the log. A judgement: a fleet of 100 may fall at once; no flutter fills a disk."""
_LEVELS = (
    (Severity.INFO, logging.INFO),
    (Severity.WARNING, logging.WARNING),
    (Severity.ERROR, logging.ERROR),
)
_log = logging.getLogger(__name__)


class EventLog:
    """Keeps events and writes each to the log.

    Args:
        wall_clock: seconds since 1970.
    """

    def __init__(self, wall_clock: Callable[[], float] = time.time) -> None:
        self._wall_clock = wall_clock
        self._events: deque[StateChange] = deque(maxlen=CAPACITY)
        self._n_told = 0
        self._lines_left = float(LINES_AT_ONCE)
        self._filled_at_s = wall_clock()
        self._n_unwritten = 0

    def tell(self, kind: ChangeKind, text: str, *, pool: str = "", endpoint: str = "") -> None:
        """Something has changed."""
        self._n_told += 1
        event = StateChange(self._n_told, self._wall_clock(), kind, pool, endpoint, text)
        self._events.append(event)
        self._write(event)

    def last(self, limit: int, since: int = 0) -> list[StateChange]:
        """The last *limit* events with a number above *since*, newest first."""
        newer = [event for event in self._events if event.number > since]
        return newer[::-1][:limit]

    def _write(self, event: StateChange) -> None:
        gained = LINES_PER_S * max(0.0, event.wall_s - self._filled_at_s)
        self._lines_left = min(float(LINES_AT_ONCE), self._lines_left + gained)
        self._filled_at_s = event.wall_s
        if self._lines_left < 1.0:
            self._n_unwritten += 1
            return
        self._lines_left -= 1.0
        if self._n_unwritten:
            _log.warning("%d events were too many for this log; see /events", self._n_unwritten)
            self._n_unwritten = 0
        where = f"pool {event.pool}: " if event.pool else ""
        # The fields are for logs in JSON; the sentence says them all.
        _log.log(
            dict(_LEVELS)[event.severity],
            "%s%s",
            where,
            event.text,
            extra={"event": event.as_json()},
        )
