"""watch_eds(): the endpoints that a watched file assigns to a cluster, as Envoy's file EDS does."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING

from lodestar_extproc.config import ConfigError, EdsFile, Pool
from lodestar_extproc.config.endpoints_of_file import endpoints_in, question, unpacked
from lodestar_extproc.fleet.discovery.watched_file import contents

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable
    from pathlib import Path

    from lodestar_extproc.endpoint import Endpoint

COMMAND = (sys.executable, "-m", "lodestar_extproc.config.endpoints_of_file")
LARGE_BYTES = 32 * 1024
"""From here on, some 300 endpoints, a file is read by a process of its own: 0.15 s of a core, which
a thread beside the event loop would take from it in turns, and with the garbage it leaves."""
log = logging.getLogger(__name__)


async def watch_eds(pool: Pool, eds: EdsFile) -> AsyncGenerator[tuple[Endpoint, ...], None]:
    """The endpoints of *pool* as the file names them; the last good ones while it is bad.

    Where the file is bad from the start, the first answer is empty.
    """
    known: tuple[Endpoint, ...] | None = None
    async with aclosing(contents(eds.path)) as versions:
        async for _ in versions:
            try:
                endpoints = await _read(eds, pool, known or ())
            except ConfigError as error:
                endpoints = known or ()
                log.error("pool %s keeps its %d endpoints: %s", pool.name, len(endpoints), error)  # noqa: TRY400  (the error says all)
            if endpoints is not known:
                known = endpoints
                yield endpoints


async def _read(eds: EdsFile, pool: Pool, known: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    """What the file says now; those that stay as they were are the same objects.

    So whoever compares a thousand of them, on the event loop, is done at once.

    Raises:
        ConfigError: it is bad.
    """
    if await asyncio.to_thread(_size, eds.path) >= LARGE_BYTES:
        answered = await _ask_process(question(eds, pool))
        if answered is not None:
            return await asyncio.to_thread(_as_known, lambda: unpacked(answered), known)
    return await asyncio.to_thread(_as_known, lambda: endpoints_in(eds, pool), known)


async def _ask_process(asked: bytes) -> bytes | None:
    """What a process that reads the file answers; None where there is none, or it died."""
    try:
        process = await asyncio.create_subprocess_exec(
            *COMMAND, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
    except OSError as error:
        log.warning("a large file of endpoints is read in this process: %s", error)
        return None
    try:
        answered, _ = await process.communicate(asked)
    finally:
        if process.returncode is None:  # nobody waits for it any more
            process.kill()
    return answered if process.returncode == 0 else None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _as_known(
    told: Callable[[], Iterable[Endpoint]], known: tuple[Endpoint, ...]
) -> tuple[Endpoint, ...]:
    by_address = {endpoint.address: endpoint for endpoint in known}
    endpoints = tuple(
        before if (before := by_address.get(each.address)) == each else each for each in told()
    )
    return known if endpoints == known else endpoints
