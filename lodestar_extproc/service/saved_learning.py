"""SavedLearning: keeps what one pool has learned on the disk, and takes it up again.

So it does with who keeps which answer: a client may go on from one after a restart of ours.

Whatever the disk or the file answers, requests are served, and what was wrong is told: once when
it begins, and once when it is over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from base64 import b64decode, b64encode
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from lodestar_extproc.generated.lodestar.v1.replicas_pb2 import KeptColumns
from lodestar_extproc.learning.checkpoint import (
    read_checkpoint,
    warm_start,
    write_checkpoint,
)
from lodestar_extproc.routing.kept import Kept
from lodestar_extproc.routing.router import Router
from lodestar_extproc.service.worker import WorkerPlace, own_file
from lodestar_extproc.sharing.kept_columns import take_all, write_all

KEPT = "kept"
"""The key of what engines keep, in a checkpoint's state; earlier versions pass over it."""
MAX_KEPT = 10_000
"""That are written, the most recently used: 2 MB, in 25 ms of a thread of its own."""
_log = logging.getLogger(__name__)


class CheckpointOwners:
    """Which pool writes which file: one file holds what one pool of one worker has learned."""

    def __init__(self, place: WorkerPlace | None = None) -> None:
        self._place = place
        self._owners: dict[Path, str] = {}

    def file(self, named: str | None) -> Path | None:
        """Ours, where settings say *named*."""
        return None if named is None else own_file(Path(named), self._place)

    def claim(self, path: Path | None, pool: str) -> str:
        """Give *path*, and nothing beside, to *pool* if it is free; returns whose it is then."""
        self._owners = {held: owner for held, owner in self._owners.items() if owner != pool}
        return pool if path is None else self._owners.setdefault(path.absolute(), pool)


class SavedLearning:
    """The checkpoint of *router*, where its settings name one; `restore` comes first.

    Args:
        owners: the files of all pools.
        clock: monotonic seconds, the router's.
    """

    def __init__(
        self,
        router: Router,
        owners: CheckpointOwners | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._router = router
        self._owners = CheckpointOwners() if owners is None else owners
        self._all = _LearnedAndKept(router, clock)
        self._path: Path | None = None
        self._told = ""

    def adopt(self, apply: Callable[[], None]) -> None:
        """Let *apply* change the settings; what was learned is neither lost nor mixed.

        Where another file or another predictor is chosen, what was learned until now goes into the
        old file first, and what is kept for the new choice is taken up, as at a start.
        """
        self._router.samples.catch_up()
        before, learner = self._choice, self._router.learner
        apply()
        if self._choice == before:
            return
        if self._path is not None:
            self._write(self._path, learner.predictor.name, learner.state(), self._kept)
        self.restore()

    def restore(self) -> None:
        """Take up what was learned before, if there is anything; what cannot be read is told."""
        self._path = self._claimed()
        if self._path is None:
            return
        pool, learner = self._router.pool, self._router.learner
        try:
            warm = warm_start(self._path, learner.predictor.name, self._all) or self._as_the_first()
        except (OSError, ValueError) as error:
            # It is there, and can be neither read nor set aside: no reason to stop serving.
            words = _words(error)
            _log.warning("pool %s: checkpoint %s not taken up: %s", pool, self._path, words)
            return
        if warm:
            _log.info("pool %s: starting warm from %s", pool, self._path)

    def _as_the_first(self) -> bool:
        """A worker of which nothing is kept yet begins with what the first of them has learned."""
        named, learner = self._router.settings.checkpoint_path, self._router.learner
        if named is None or Path(named) == self._path:
            return False
        with suppress(OSError, ValueError):  # what is wrong with it is the first one's to say
            self._all.restore(read_checkpoint(Path(named), learner.predictor.name))
            return True
        return False

    def save(self) -> None:
        """Write the checkpoint, where one is configured."""
        learner = self._router.learner
        if self._path is not None:
            self._router.samples.catch_up()
            self._write(self._path, learner.predictor.name, learner.state(), self._kept)

    async def save_often(self) -> None:
        """Save every `checkpoint_interval_s`, until cancelled."""
        while True:
            await asyncio.sleep(self._router.settings.checkpoint_interval_s)
            path, learner = self._path, self._router.learner
            if path is not None:
                # The disk may take its time; requests may not.
                self._router.samples.catch_up()
                name, state = learner.predictor.name, learner.state()
                await asyncio.to_thread(self._write, path, name, state, self._kept)

    @property
    def _choice(self) -> tuple[str | None, str]:
        """What settings say of where, and of what is learned."""
        settings = self._router.settings
        return settings.checkpoint_path, settings.predictor

    def _claimed(self) -> Path | None:
        """The file that settings name; None for none, and where it is another pool's."""
        pool = self._router.pool
        path = self._owners.file(self._router.settings.checkpoint_path)
        owner = self._owners.claim(path, pool)
        if owner == pool:
            return path
        words = "what is learned stays in memory: name another file"
        _log.warning("pool %s: checkpoint %s is that of pool %s, %s", pool, path, owner, words)
        return None

    @property
    def _kept(self) -> list[tuple[int, Kept]]:
        return list(self._router.kept_answers.recent(MAX_KEPT))

    def _write(
        self, path: Path, predictor: str, state: dict[str, Any], kept: list[tuple[int, Kept]]
    ) -> None:
        columns = KeptColumns()
        write_all(columns, kept)
        told = {KEPT: b64encode(columns.SerializeToString()).decode()} if kept else {}
        try:
            write_checkpoint(path, predictor, state | told)
        except (OSError, ValueError) as error:
            words = _words(error)
            self._tell(f"checkpoint {path} not written, what is learned stays in memory: {words}")
        else:
            self._tell("")

    def _tell(self, problem: str) -> None:
        """When it begins to fail, or fails otherwise, and when that is over."""
        if problem and problem != self._told:
            _log.warning("pool %s: %s", self._router.pool, problem)
        elif self._told and not problem:
            _log.warning("pool %s: the checkpoint is written again", self._router.pool)
        self._told = problem


class _LearnedAndKept:
    """All that a checkpoint of *router* holds."""

    def __init__(self, router: Router, clock: Callable[[], float]) -> None:
        self._router = router
        self._clock = clock

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a state, or change nothing.

        Raises:
            ValueError: it is not a state of this.
        """
        columns = KeptColumns()
        try:
            columns.ParseFromString(b64decode(state.get(KEPT, ""), validate=True))
        except (AttributeError, TypeError, DecodeError) as error:
            raise ValueError(f"not what engines keep: {error!r}") from error
        self._router.learner.restore(state)
        take_all(columns, self._router.kept_answers, self._clock())


def _words(error: OSError | ValueError) -> str:
    """Without the name of a temporary file, which is another each time."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
