"""Pool: a cluster whose endpoints are chosen among; Member: one of its entries, as written."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_address
from types import MappingProxyType
from typing import TYPE_CHECKING

from lodestar_extproc.config.kubernetes import KubernetesSource
from lodestar_extproc.config.kv_events import kv_events_source
from lodestar_extproc.config.member import Member
from lodestar_extproc.config.reach import encryption, health_path, health_question
from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.config.upstream import (
    OVERPROVISIONING,
    PANIC_RATIO,
    PLAINLY,
    SYSTEM_DNS,
    DnsLookup,
    HttpHealthCheck,
    Transports,
)
from lodestar_extproc.encryption import UpstreamTls
from lodestar_extproc.endpoint import Endpoint, Level

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

METRICS_PATHS: Mapping[str, str] = MappingProxyType({"trtllm": "/prometheus/metrics"})
"""Of engines that show their metrics elsewhere; trtllm-serve's `/metrics` is JSON."""
METRICS_PORTS: Mapping[str, int] = MappingProxyType({"triton": 8002})
"""Of engines that show them on another port than they serve on."""


class Resolution(StrEnum):
    """How a cluster's entries become addresses; Envoy's names."""

    STATIC = "STATIC"
    STRICT_DNS = "STRICT_DNS"
    """Every address of every name."""
    LOGICAL_DNS = "LOGICAL_DNS"
    """The first address of every name."""
    EDS = "EDS"
    """From a watched file, or from a control plane."""

    @property
    def by_dns(self) -> bool:
        return self in (Resolution.STRICT_DNS, Resolution.LOGICAL_DNS)


@dataclass(frozen=True, slots=True)
class Assignment:
    """The endpoints of a cluster.

    Attributes:
        overprovisioning: a level of priority serves all requests while its healthy ratio times
            this is at least 1.
    """

    members: tuple[Member, ...] = ()
    overprovisioning: float = OVERPROVISIONING


@dataclass(frozen=True, slots=True)
class EdsFile:
    """The file a cluster of type EDS is read from, and the assignment's name in it.

    Attributes:
        transports: the cluster's.
    """

    path: Path
    cluster_name: str
    transports: Transports = PLAINLY


@dataclass(frozen=True, slots=True)
class Pool:
    """A cluster that carries `metadata.filter_metadata.lodestar`.

    Attributes:
        name: the cluster's.
        members: as written in the cluster; empty with EDS.
        kubernetes: where the endpoints come from instead, if from an API server.
        overprovisioning: of its members; an EDS file says its own.
        panic_ratio: of healthy endpoints, below which Envoy sends to all of a level.
        dns: how its names are resolved.
        health: how Envoy asks its endpoints; None where it does not, or not by HTTP.
        transports: how Envoy reaches them.
        line: of the cluster in the file.
    """

    name: str
    settings: PoolSettings = field(default_factory=PoolSettings)
    resolution: Resolution = Resolution.STATIC
    members: tuple[Member, ...] = ()
    eds: EdsFile | None = None
    kubernetes: KubernetesSource | None = None
    overprovisioning: float = OVERPROVISIONING
    panic_ratio: float = PANIC_RATIO
    dns: DnsLookup = SYSTEM_DNS
    health: HttpHealthCheck | None = None
    transports: Transports = PLAINLY
    line: int = field(default=0, compare=False)

    @property
    def endpoints_by_xds(self) -> bool:
        """Whether a control plane tells them to Envoy, and nobody to us."""
        unknown = self.resolution is Resolution.EDS and self.eds is None
        return unknown and self.kubernetes is None

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The members that need no resolution: all of a STATIC cluster, none of another."""
        if self.resolution is not Resolution.STATIC or self.kubernetes is not None:
            return ()
        return self.endpoints_of(self.members)

    def endpoints_of(self, members: tuple[Member, ...]) -> tuple[Endpoint, ...]:
        """Endpoints of *members* whose hosts are IP addresses, each address once."""
        return each_once(self.endpoint(member, member.host) for member in members)

    def endpoint(self, member: Member, ip: str) -> Endpoint:
        """The endpoint that *member* is at address *ip*."""
        own = member.settings
        metrics_port = own.metrics_port or METRICS_PORTS.get(own.engine, member.port)
        metrics_path = own.metrics_path or METRICS_PATHS.get(own.engine, self.settings.metrics_path)
        tls = encryption(member, self.settings)
        scheme = "http" if tls is None else "https"
        # Another port is another server of the engine's, which in general encrypts nothing.
        metrics_scheme = own.metrics_scheme or (scheme if metrics_port == member.port else "http")
        checked_port = self.health.port if self.health is not None else None
        health_port = member.health_port or checked_port or member.port
        path = health_path(self.health, self.settings)
        return Endpoint(
            address=host_and_port(ip, member.port),
            accelerator=own.accelerator,
            engine=own.engine,
            metrics_url=f"{metrics_scheme}://{host_and_port(ip, metrics_port)}{metrics_path}",
            health_url=f"{scheme}://{host_and_port(ip, health_port)}{path}"
            if member.checked
            else None,
            kv_capacity_tokens=own.kv_capacity_tokens,
            token_budget=own.token_budget,
            prefix_caching=own.prefix_caching,
            tls=tls or (UpstreamTls() if metrics_scheme == "https" else None),
            health=health_question(member, self.health, self.settings, self.name),
            kv_events=kv_events_source(ip, own, self.settings.kv_events),
            level=Level(member.priority, self.overprovisioning, self.panic_ratio, member.degraded),
        )


def each_once(endpoints: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    """Each address once: on the most preferred of the levels that have it, the last of these."""
    found: dict[str, Endpoint] = {}
    for endpoint in endpoints:
        known = found.get(endpoint.address)
        if known is None or endpoint.level.priority <= known.level.priority:
            found[endpoint.address] = endpoint
    return tuple(found.values())


def host_and_port(ip: str, port: int) -> str:
    """As Envoy writes an address.

    >>> host_and_port("10.0.0.7", 8000), host_and_port("fd00:0::7", 8000)
    ('10.0.0.7:8000', '[fd00::7]:8000')
    """
    address = ip_address(ip)
    return f"[{address.compressed}]:{port}" if address.version == 6 else f"{address}:{port}"
