"""Workers: one parent that keeps several processes serving, each a replica on the same addresses.

The parent serves nobody: it begins workers, begins those anew that die or stand still, passes
signals and frames on, and ends when all have ended.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lodestar_extproc.service.worker import BEAT_S, WorkerPlace
from lodestar_extproc.sharing.hub import Hub

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
"""Before a worker begins anew, doubled each time: what kills it at its start costs two starts a
minute in the end. One that lived as long as the longest pause is begun after the first again."""
STILL_BEATS = 10
"""A worker that misses so many is ended: Envoy does not find out, for its checks reach any."""
NOT_TO_BE_BEGUN_ANEW = (2, 3)
"""Exit statuses of `serve`: the configuration is wrong, an address is taken."""
_log = logging.getLogger(__name__)


class Workers:
    """Runs until told to stop, or until a worker cannot even begin.

    Args:
        command: that runs a worker, which reads its place from its environment.
        folder: an empty one, for their sockets, that others may not enter.
    """

    def __init__(self, n_workers: int, command: Sequence[str], folder: Path) -> None:
        self._places = [WorkerPlace(n, n_workers, folder, os.getpid()) for n in range(n_workers)]
        self._command = tuple(command)
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._statuses: list[int] = []

    async def run(self) -> int:
        """Keep all of them; the exit status, which is 0 where all ended well."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._send, signal.SIGHUP)
        async with Hub(self._places[0].hub), asyncio.TaskGroup() as group:
            for place in self._places:
                group.create_task(self._keep(place))
        return max(self._statuses, default=0)

    def stop(self) -> None:
        """Have all of them end in good order. Idempotent."""
        self._stopping.set()
        self._send(signal.SIGTERM)

    def _send(self, number: signal.Signals) -> None:
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                process.send_signal(number)

    async def _keep(self, place: WorkerPlace) -> None:
        pause_s, was_alive = FIRST_PAUSE_S, False
        while not self._stopping.is_set():
            began_s = time.monotonic()
            status = await self._run(place)
            was_alive = was_alive or place.alive_file.exists()
            place.alive_file.unlink(missing_ok=True)
            if self._stopping.is_set():
                self._statuses.append(status)
                return
            if status in NOT_TO_BE_BEGUN_ANEW and not was_alive:
                # It has said why; the others would say the same.
                self._statuses.append(status)
                self.stop()
                return
            if time.monotonic() - began_s > LONGEST_PAUSE_S:
                pause_s = FIRST_PAUSE_S
            _log.error(
                "worker %d ended, %s; begun anew in %g s", place.number, _words(status), pause_s
            )
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _run(self, place: WorkerPlace) -> int:
        """One process from its start to its end; its exit status, below 0 for a signal."""
        environment = {**os.environ, **place.environment()}
        process = await asyncio.create_subprocess_exec(*self._command, env=environment)
        self._processes[place.number] = process
        if self._stopping.is_set():  # told so while it was begun
            self._send(signal.SIGTERM)
        watching = asyncio.create_task(self._end_if_still(place, process))
        try:
            return await process.wait()
        finally:
            watching.cancel()
            del self._processes[place.number]

    async def _end_if_still(self, place: WorkerPlace, process: asyncio.subprocess.Process) -> None:
        beats = Beats(place.alive_file)
        while not self._stopping.is_set():
            await asyncio.sleep(BEAT_S)
            if beats.n_missed() >= STILL_BEATS:
                _log.error("worker %d stands still: ended", place.number)
                process.kill()
                return


class Beats:
    """How many beats in a row were missed, of who touches a file; none before the first.

    A beat is missed only where we looked: a machine that slept has missed none, and clocks that
    step make none.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._last: int | None = None
        self._n_missed = 0

    def n_missed(self) -> int:
        """To be called once a beat."""
        touched = self._touched()
        same = touched is not None and touched == self._last
        self._n_missed = self._n_missed + 1 if same else 0
        self._last = touched
        return self._n_missed

    def _touched(self) -> int | None:
        try:
            return self._file.stat().st_mtime_ns
        except OSError:
            return None


def _words(status: int) -> str:
    if status >= 0:
        return f"status {status}"
    with suppress(ValueError):
        return f"killed by {signal.Signals(-status).name}"
    return f"killed by signal {-status}"
