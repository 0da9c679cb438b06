"""watch_eds(): the endpoints that a watched file assigns to a cluster, as Envoy's file EDS does."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING

from lodestar_extproc.config import ConfigError, EdsFile, Pool
from lodestar_extproc.config.members import read_eds_assignment
from lodestar_extproc.fleet.discovery.watched_file import contents

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from lodestar_extproc.endpoint import Endpoint

log = logging.getLogger(__name__)


async def watch_eds(pool: Pool, eds: EdsFile) -> AsyncGenerator[tuple[Endpoint, ...], None]:
    """The endpoints of *pool* as the file names them; the last good ones while it is bad.

    Where the file is bad from the start, the first answer is empty.
    """
    known: tuple[Endpoint, ...] | None = None
    async with aclosing(contents(eds.path)) as versions:
        async for _ in versions:
            try:
                endpoints = await asyncio.to_thread(_endpoints_in, eds, pool, known or ())
            except ConfigError as error:
                endpoints = known or ()
                log.error("pool %s keeps its %d endpoints: %s", pool.name, len(endpoints), error)  # noqa: TRY400  (the error says all)
            if endpoints is not known:
                known = endpoints
                yield endpoints


def _endpoints_in(eds: EdsFile, pool: Pool, known: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    """What the file says of *pool* now; those that stay as they were are the same objects.

    So whoever compares a thousand of them, on the event loop, is done at once.
    """
    told = read_eds_assignment(eds)
    now = dataclasses.replace(pool, overprovisioning=told.overprovisioning)
    as_known = {endpoint.address: endpoint for endpoint in known}
    endpoints = tuple(
        before if (before := as_known.get(each.address)) == each else each
        for each in now.endpoints_of(told.members)
    )
    return known if endpoints == known else endpoints
