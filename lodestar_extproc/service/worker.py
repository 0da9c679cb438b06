"""WorkerPlace: which of the workers of one `serve` this process is, and what is its own then."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

BEAT_S = 1.0
"""A worker says so often that it lives; its parent waits ten times as long."""
_VARIABLE = "LODESTAR_WORKER_PLACE"
"""Environment by which a parent tells its worker; no option, for nobody else is to give it."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """One of *n_workers* processes that one parent keeps.

    Attributes:
        number: from 0.
        folder: of the sockets between them; only their user may enter it.
        parent_pid: of who keeps them.
    """

    number: int
    n_workers: int
    folder: Path
    parent_pid: int

    @property
    def hub(self) -> Path:
        """Where the parent passes frames on."""
        return self.folder / "hub.sock"

    @property
    def sockets(self) -> tuple[str, ...]:
        """Where each worker is told what others heard of its requests, by number."""
        return tuple(f"unix:{self.folder / str(n)}.sock" for n in range(self.n_workers))

    @property
    def alive_file(self) -> Path:
        """Touched while its event loop turns."""
        return self.folder / f"{self.number}.alive"

    def environment(self) -> dict[str, str]:
        """By which a process knows that it is this one."""
        parts = (self.number, self.n_workers, self.parent_pid, self.folder)
        return {_VARIABLE: " ".join(map(str, parts))}


def own_place() -> WorkerPlace | None:
    """Which worker this process is; None where it is nobody's."""
    told = os.environ.get(_VARIABLE)
    if told is None:
        return None
    number, n_workers, parent_pid, folder = told.split(" ", 3)
    return WorkerPlace(int(number), int(n_workers), Path(folder), int(parent_pid))


def own_file(path: Path, place: WorkerPlace | None) -> Path:
    """The file of this worker for what settings call *path*; the first has that one itself.

    >>> own_file(Path("learned.json"), WorkerPlace(2, 4, Path("/run/lodestar"), 1))
    PosixPath('learned.json.worker-2')
    """
    if place is None or place.number == 0:
        return path
    return path.with_name(f"{path.name}.worker-{place.number}")


def own_admin(address: str, place: WorkerPlace | None) -> str:
    """Where this worker serves operators: ports count up from that of the first.

    Raises:
        ValueError: there is no such port.
    """
    host, _, port = address.rpartition(":")
    if place is None or port == "0":  # any free one
        return address
    number = int(port) + place.number
    if number >= 2**16:
        raise ValueError(f"--admin {address}: worker {place.number} would need port {number}")
    return f"{host}:{number}"


def dealt(addresses: Sequence[str], n_workers: int) -> bool:
    """Whether each worker gets one of *addresses* for itself, rather than all of them sharing."""
    return n_workers > 1 and len(addresses) == n_workers


async def attend(place: WorkerPlace | None, stop: Callable[[], None]) -> None:
    """Say that we live, and *stop* once our parent is gone; until cancelled."""
    while place is not None:
        place.alive_file.touch()
        if os.getppid() != place.parent_pid:
            _log.warning("the process that kept this worker is gone: stopping")
            stop()
            return
        await asyncio.sleep(BEAT_S)
