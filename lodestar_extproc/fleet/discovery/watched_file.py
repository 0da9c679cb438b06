"""contents(): a file's bytes now and after each change; it does not know what they mean."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING

from watchfiles import awatch

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

log = logging.getLogger(__name__)

POLL_S = 1.0
"""The file is read this often in any case: some file systems tell of no changes."""
STEP_MS = 100
"""How often the watching thread looks up."""
DEBOUNCE_MS = 200
"""A burst of changes is read once, at the latest this long after its first."""


async def contents(path: Path, *, poll_s: float = POLL_S) -> AsyncGenerator[bytes | None, None]:
    """The file's content, at once and whenever it is another; None while there is no file.

    The folder is watched, not the file: editors and Kubernetes replace files by renaming.
    """
    content = await asyncio.to_thread(_read, path)
    yield content
    async with aclosing(_stirs(path.parent, poll_s)) as stirs:
        async for _ in stirs:
            latest = await asyncio.to_thread(_read, path)
            if latest != content:
                content = latest
                yield content


async def _stirs(folder: Path, poll_s: float) -> AsyncGenerator[None, None]:
    """Something may have changed in *folder*."""
    changes = awatch(
        folder,
        watch_filter=None,
        recursive=False,
        step=STEP_MS,
        debounce=DEBOUNCE_MS,
        rust_timeout=int(poll_s * 1e3),
        yield_on_timeout=True,
    )
    try:
        async with aclosing(changes):
            async for _ in changes:
                yield
    except OSError as error:
        log.warning("%s cannot be watched, so it is read every %g s: %s", folder, poll_s, error)
    while True:
        await asyncio.sleep(poll_s)
        yield


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
