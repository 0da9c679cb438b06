"""How Envoy reaches the endpoints of a cluster: encryption, health checks, names, as values.

Reading them is the business of `upstream_tls.py` and `envoy_pool.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lodestar_extproc.encryption import UpstreamTls

DNS_REFRESH_S = 5.0
"""Envoy's own default (`dns_refresh_rate`)."""
OVERPROVISIONING = 1.4
"""Envoy's own default (`overprovisioning_factor`, 140 percent)."""
PANIC_RATIO = 0.5
"""Envoy's own default (`healthy_panic_threshold`, 50 percent)."""
EXPECTED_STATUSES = ((200, 201),)
"""Envoy's own default (`expected_statuses`)."""


@dataclass(frozen=True, slots=True)
class Transport:
    """How bytes get to an endpoint.

    Attributes:
        tls: None where they go as they are.
        unread: what of it cannot be told from here, in words; empty where all can.
    """

    tls: UpstreamTls | None = None
    unread: str = ""


PLAIN = Transport()


@dataclass(frozen=True, slots=True)
class TransportMatch:
    """A transport for the endpoints whose metadata says so.

    Attributes:
        criteria: keys and values of `envoy.transport_socket_match`, all of which have to agree.
    """

    criteria: tuple[tuple[str, str], ...]
    transport: Transport


@dataclass(frozen=True, slots=True)
class Transports:
    """Of a cluster: the first match holds, else the other."""

    otherwise: Transport = PLAIN
    matches: tuple[TransportMatch, ...] = ()

    def of(self, metadata: dict[str, str]) -> Transport:
        """For an endpoint with this *metadata* of `envoy.transport_socket_match`."""
        for match in self.matches:
            if all(metadata.get(key) == value for key, value in match.criteria):
                return match.transport
        return self.otherwise


PLAINLY = Transports()


@dataclass(frozen=True, slots=True)
class HttpHealthCheck:
    """How Envoy asks an endpoint whether it is healthy.

    Attributes:
        host: the Host header; empty for the endpoint's own name, else the cluster's.
        statuses: ranges of those that are healthy, the end not counted.
        port: instead of the endpoint's, where it says nothing itself.
    """

    path: str
    host: str = ""
    method: str = "GET"
    statuses: tuple[tuple[int, int], ...] = EXPECTED_STATUSES
    port: int | None = None
    interval_s: float | None = None
    timeout_s: float | None = None

    def is_healthy(self, status: int) -> bool:
        return any(start <= status < end for start, end in self.statuses)


class DnsFamily(StrEnum):
    """Which addresses of a name are taken; Envoy's names."""

    AUTO = "AUTO"
    """Those of IPv6 if there are any, else those of IPv4."""
    V4_ONLY = "V4_ONLY"
    V6_ONLY = "V6_ONLY"
    V4_PREFERRED = "V4_PREFERRED"
    """Those of IPv4 if there are any, else those of IPv6."""
    ALL = "ALL"


@dataclass(frozen=True, slots=True)
class DnsLookup:
    """How names become addresses.

    Attributes:
        resolvers: name servers, `host:port`, instead of the system's; none for the system's.
        respect_ttl: whether an answer is kept for as long as it says, not for *refresh_s*.
        unread: what of it cannot be told from here, in words.
    """

    family: DnsFamily = DnsFamily.AUTO
    resolvers: tuple[str, ...] = ()
    refresh_s: float = DNS_REFRESH_S
    respect_ttl: bool = False
    unread: str = ""


SYSTEM_DNS = DnsLookup()
