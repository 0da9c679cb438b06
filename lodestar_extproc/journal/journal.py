"""Journal: hears of every decision and its end, and writes them down beside the request path.

What it hears is kept in memory for a moment; lines are made on the event loop, one at a time, and
written by another thread. A disk that is full or slow costs lines, never requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from lodestar_extproc.decision import Decision
from lodestar_extproc.journal.entry import Entry, entry, line
from lodestar_extproc.journal.journal_file import JournalFile
from lodestar_extproc.routing.ended_request import EndedRequest, ObservedFirstToken
from lodestar_extproc.supervision import BackgroundTask, Supervisor

FLUSH_INTERVAL_S = 1.0
"""What a crash may lose, against a write and a thread's hop for each."""
MAX_WAITING = 2000
"""Entries: some 10 MB for 8 endpoints, 60 MB for 64."""
BATCH = 256
"""Entries a write: about a megabyte of lines for 8 endpoints."""
LAST_WRITE_S = 5.0
"""What is left is written at the end within it, or lost: a disk that hangs holds up no stop."""
_log = logging.getLogger(__name__)


class Journal:
    """A `RouterListener`; nothing is written unless it is `running`.

    Args:
        count: told how many entries were `written` or `dropped`.
        supervisor: told of what should not happen.
        wall_clock: seconds since 1970.
        interval_s: between two writes.
        max_waiting: an entry that would be one more is dropped.
        last_write_s: how long the end may wait for the disk.
    """

    def __init__(
        self,
        file: JournalFile,
        *,
        count: Callable[[str, int], None],
        supervisor: Supervisor | None = None,
        wall_clock: Callable[[], float] = time.time,
        interval_s: float = FLUSH_INTERVAL_S,
        max_waiting: int = MAX_WAITING,
        last_write_s: float = LAST_WRITE_S,
    ) -> None:
        self._file = file
        self._count = count
        self._supervisor = supervisor or Supervisor()
        self._wall_clock = wall_clock
        self._interval_s = interval_s
        self._max_waiting = max_waiting
        self._last_write_s = last_write_s
        self._waiting: deque[Entry] = deque()
        self._stop = asyncio.Event()
        self._fails = False

    # -- what routers report ---------------------------------------------------------------------

    def decided(self, decision: Decision) -> None:
        """See `RouterListener`: a line is written when the request has ended."""

    def first_token(self, decision: Decision, first_token: ObservedFirstToken) -> None:
        """See `RouterListener`: the end tells it again."""

    def ended(self, request: EndedRequest) -> None:
        """See `RouterListener`."""
        if len(self._waiting) >= self._max_waiting:
            self._count("dropped", 1)
            return
        self._waiting.append(entry(request, self._wall_clock()))

    # -- writing ---------------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write beside the body, and at its end what is left."""
        writing = asyncio.create_task(self._supervisor.keep(BackgroundTask.JOURNAL, self._run))
        try:
            yield
        finally:
            self._stop.set()
            _, late = await asyncio.wait([writing], timeout=self._last_write_s)
            if late:
                _log.warning("journal %s: not written to its end: no answer", self._file.path)
                writing.cancel()

    async def _run(self) -> None:
        stopping = False
        while not stopping:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), self._interval_s)
            stopping = self._stop.is_set()
            while self._waiting:
                await self._write(min(BATCH, len(self._waiting)))
        self._file.close()

    async def _write(self, n: int) -> None:
        """Write the first *n* entries; they wait no longer, whether it succeeds or not."""
        error: OSError | None = None
        n_written = 0
        try:
            await asyncio.to_thread(self._file.make_room)
            lines = await self._lines(n)
            await asyncio.to_thread(self._file.append, b"".join(lines))
            n_written = len(lines)
        except OSError as caught:
            error = caught
        for _ in range(n):
            self._waiting.popleft()
        for result, count in (("written", n_written), ("dropped", n - n_written)):
            if count:
                self._count(result, count)
        self._tell(error)

    async def _lines(self, n: int) -> list[bytes]:
        """Those of the first *n* entries that can be made: one that cannot costs itself only."""
        lines = []
        for i in range(n):
            with self._supervisor.catching(BackgroundTask.JOURNAL):
                lines.append(line(self._waiting[i], self._file.salt))
            await asyncio.sleep(0)  # requests come first
        return lines

    def _tell(self, error: OSError | None) -> None:
        """When it begins to fail, and when that is over; not every second between."""
        if error is not None and not self._fails:
            _log.warning("journal %s: not written: %s", self._file.path, error)
        elif error is None and self._fails:
            _log.warning("journal %s: written again", self._file.path)
        self._fails = error is not None
