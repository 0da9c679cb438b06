"""watch_dns(): the addresses behind a cluster's names, resolved again and again as Envoy does."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

from lodestar_extproc.config import Member, Pool, Resolution

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from lodestar_extproc.endpoint import Endpoint

log = logging.getLogger(__name__)

Resolve: TypeAlias = Callable[[str], Awaitable[list[str]]]
"""A host name's IP addresses, the preferred first; raises OSError where there are none."""
Sleep: TypeAlias = Callable[[float], Awaitable[None]]


async def resolve(host: str) -> list[str]:
    """By the system's resolver, without blocking the loop."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


async def watch_dns(
    pool: Pool, *, resolve: Resolve = resolve, sleep: Sleep = asyncio.sleep
) -> AsyncGenerator[tuple[Endpoint, ...], None]:
    """The endpoints of *pool*, resolved every `dns.refresh_s`.

    A name that does not resolve keeps its last addresses; the first answer may be empty.
    """
    known: tuple[Endpoint, ...] | None = None
    addresses: dict[Member, tuple[str, ...]] = {}
    while True:
        answers = await asyncio.gather(
            *(_lookup(pool, member, addresses.get(member, ()), resolve) for member in pool.members)
        )
        addresses = dict(zip(pool.members, answers, strict=True))
        found = (pool.endpoint(m, ip) for m in pool.members for ip in addresses[m])
        endpoints = tuple({endpoint.address: endpoint for endpoint in found}.values())
        if endpoints != known:
            known = endpoints
            yield known
        await sleep(pool.dns.refresh_s)


async def _lookup(
    pool: Pool, member: Member, last: tuple[str, ...], resolve: Resolve
) -> tuple[str, ...]:
    try:
        found = await resolve(member.host)
    except OSError as error:
        log.warning(
            "pool %s: %s does not resolve, its %d addresses stay: %s",
            pool.name,
            member.host,
            len(last),
            error,
        )
        return last
    if pool.resolution is Resolution.LOGICAL_DNS:
        return tuple(found[:1])
    # Resolvers rotate their answers; a mere change of order is no change.
    return tuple(sorted(set(found)))
