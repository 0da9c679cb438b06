"""watch_dns(): the addresses behind a cluster's names, resolved again and again as Envoy does."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING, TypeAlias

from lodestar_extproc.config import Member, Pool, Resolution
from lodestar_extproc.config.pool import each_once
from lodestar_extproc.config.upstream import DnsFamily, DnsLookup
from lodestar_extproc.fleet.discovery.name_server import AAAA, A, ask

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from lodestar_extproc.endpoint import Endpoint

log = logging.getLogger(__name__)

Resolve: TypeAlias = Callable[[str], Awaitable[list[str]]]
"""A host name's IP addresses, the preferred first; raises OSError where there are none."""
Sleep: TypeAlias = Callable[[float], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "::1")
"""What `localhost` is to c-ares, by which Envoy resolves, whatever the system says (RFC 6761)."""


def resolver_of(dns: DnsLookup) -> Resolve:
    """Who is asked for names: the system, or the name servers that the cluster names."""

    async def by_servers(host: str) -> list[str]:
        failure: OSError | None = None
        for server in dns.resolvers:
            try:
                answers = await asyncio.gather(ask(server, host, AAAA), ask(server, host, A))
            except OSError as error:
                failure = error
                continue
            return [address for answer in answers for address in answer]
        raise failure or OSError("no name server knows it")

    return by_servers if dns.resolvers else resolve


async def resolve(host: str) -> list[str]:
    """By the system's resolver, without blocking the loop."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def of_family(addresses: Iterable[str], family: DnsFamily) -> list[str]:
    """Those of *addresses* that Envoy takes for *family*, in their order.

    >>> of_family(["10.0.0.1", "fd00::1"], DnsFamily.AUTO)
    ['fd00::1']
    """
    found = list(addresses)
    by_version = {v: [a for a in found if ip_address(a).version == v] for v in (4, 6)}
    match family:
        case DnsFamily.V4_ONLY:
            return by_version[4]
        case DnsFamily.V6_ONLY:
            return by_version[6]
        case DnsFamily.V4_PREFERRED:
            return by_version[4] or by_version[6]
        case DnsFamily.AUTO:
            return by_version[6] or by_version[4]
    return found


async def watch_dns(
    pool: Pool, *, resolve: Resolve | None = None, sleep: Sleep = asyncio.sleep
) -> AsyncGenerator[tuple[Endpoint, ...], None]:
    """The endpoints of *pool*, resolved every `dns.refresh_s`.

    A name that does not resolve keeps its last addresses; the first answer may be empty.
    """
    asked = resolve or resolver_of(pool.dns)
    known: tuple[Endpoint, ...] | None = None
    addresses: dict[Member, tuple[str, ...]] = {}
    while True:
        answers = await asyncio.gather(
            *(_lookup(pool, member, addresses.get(member, ()), asked) for member in pool.members)
        )
        addresses = dict(zip(pool.members, answers, strict=True))
        found = (pool.endpoint(m, ip) for m in pool.members for ip in addresses[m])
        endpoints = each_once(found)
        if endpoints != known:
            known = endpoints
            yield known
        await sleep(pool.dns.refresh_s)


async def _lookup(
    pool: Pool, member: Member, last: tuple[str, ...], resolve: Resolve
) -> tuple[str, ...]:
    try:
        found = of_family(await _found(member.host, resolve), pool.dns.family)
        if not found:
            raise OSError(f"it has no address for dns_lookup_family {pool.dns.family}")  # noqa: TRY301  (handled as any other)
    # A ValueError says that it can be nobody's name: a label is empty, as in `a..b`, or too long.
    except (OSError, ValueError) as error:
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


async def _found(host: str, resolve: Resolve) -> Iterable[str]:
    try:
        return [ip_address(host).compressed]
    except ValueError:
        pass
    if host.rstrip(".").lower() == "localhost":
        return LOOPBACK
    return await resolve(host)
