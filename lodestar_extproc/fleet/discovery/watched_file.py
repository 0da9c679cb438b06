"""contents(): a file's bytes now and after each change; it does not know what they mean."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

from watchfiles import awatch

from lodestar_extproc.regular_file import read_regular

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable
    from pathlib import Path

log = logging.getLogger(__name__)

POLL_S = 1.0
"""The file is read this often in any case: some file systems tell of no changes."""
STEP_MS = 100
"""How often the watching thread looks up."""
DEBOUNCE_MS = 200
"""A burst of changes is read once, at the latest this long after its first."""


async def contents(
    path: Path,
    *,
    poll_s: float = POLL_S,
    asked: asyncio.Event | None = None,
    beside: Callable[[], Iterable[Path]] = tuple,
) -> AsyncGenerator[bytes | None, None]:
    """The file's content, at once and whenever it is another; None while there is no file.

    The folder is watched, not the file: editors and Kubernetes replace files by renaming.

    Args:
        asked: set to be given the content again now, even if it is the same.
        beside: files whose change counts as one of this; they are looked at every *poll_s*.
    """
    asked = asyncio.Event() if asked is None else asked

    def read() -> list[bytes | None]:
        return [_read(each) for each in (path, *beside())]

    content = await asyncio.to_thread(read)
    yield content[0]
    while True:
        async with aclosing(_stirs(path.parent, poll_s, asked)) as stirs:
            async for _ in stirs:
                latest = await asyncio.to_thread(read)
                if latest != content:
                    content = latest
                    yield content[0]
        asked.clear()
        content = await asyncio.to_thread(read)
        yield content[0]


async def _stirs(folder: Path, poll_s: float, asked: asyncio.Event) -> AsyncGenerator[None, None]:
    """Something may have changed in *folder*; it ends when *asked* is set."""
    changes = awatch(
        folder,
        watch_filter=None,
        recursive=False,
        step=STEP_MS,
        debounce=DEBOUNCE_MS,
        rust_timeout=int(poll_s * 1e3),
        yield_on_timeout=True,
        stop_event=asked,
    )
    try:
        async with aclosing(changes):
            async for _ in changes:
                yield
    except OSError as error:
        log.warning("%s cannot be watched, so it is read every %g s: %s", folder, poll_s, error)
    while not asked.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(asked.wait(), poll_s)
        yield


def _read(path: Path) -> bytes | None:
    try:
        return read_regular(path)
    except OSError:
        return None
