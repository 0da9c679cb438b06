"""watch_kubernetes(): the endpoints of a pool as a Kubernetes API server tells them."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

from lodestar_extproc.config import KubernetesSource, Member, Pool
from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.fleet.discovery.kubernetes.api import Api, NotConnected, connect
from lodestar_extproc.fleet.discovery.kubernetes.views import view_of

__all__ = ["NotConnected", "require_api_server", "watch_kubernetes"]

Connect: TypeAlias = Callable[[], AbstractAsyncContextManager[Api]]


async def require_api_server() -> None:
    """Make sure that there are credentials for one; whether it answers is another matter.

    Raises:
        NotConnected: there are none, or no client library.
    """
    async with connect():
        pass


async def watch_kubernetes(
    pool: Pool, source: KubernetesSource, *, connect: Connect = connect
) -> AsyncGenerator[tuple[Endpoint, ...], None]:
    """The endpoints of *pool*, first when everything was listed once, then after each change.

    While the API server is away, those last known stay.

    Raises:
        NotConnected: there is no API server to ask.
    """
    known: tuple[Endpoint, ...] | None = None
    changed = asyncio.Event()
    async with connect() as api:
        view = view_of(api, source, changed.set)
        listening = asyncio.ensure_future(view.run())
        # Whatever ends it, even a bug, must be heard here.
        listening.add_done_callback(lambda _: changed.set())
        try:
            while not listening.done():
                await changed.wait()
                changed.clear()
                members = view.members()
                endpoints = None if members is None else _reached_by_envoy(pool, members)
                if endpoints is not None and endpoints != known:
                    known = endpoints
                    yield known
            await listening
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


def _reached_by_envoy(pool: Pool, members: tuple[Member, ...]) -> tuple[Endpoint, ...]:
    """The endpoints of *members*, to which Envoy speaks as the cluster beside them says, if any."""
    transport = pool.transports.otherwise
    return pool.endpoints_of(
        tuple(dataclasses.replace(member, transport=transport) for member in members)
    )
