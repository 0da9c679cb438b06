"""Member: one entry of a cluster, as its assignment has it."""

from __future__ import annotations

from dataclasses import dataclass, field

from lodestar_extproc.config.endpoint_settings import EndpointSettings
from lodestar_extproc.config.upstream import PLAIN, Transport


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of a cluster.

    Attributes:
        host: an IP address, or a name where DNS resolves it.
        health_port: where Envoy's own checks go, if not to *port*.
        health_host: the Host header of these checks; empty where it says none of its own.
        checked: whether Envoy checks it at all.
        hostname: what Envoy calls it, in the Host header and the SNI of some clusters.
        priority: of its level; requests go to 0 while enough of its endpoints are healthy.
        degraded: whether it is to get requests only where others of its level cannot serve all.
        transport: how Envoy reaches it.
    """

    host: str
    port: int
    settings: EndpointSettings = field(default_factory=EndpointSettings)
    health_port: int | None = None
    health_host: str = ""
    checked: bool = True
    hostname: str = ""
    priority: int = 0
    degraded: bool = False
    transport: Transport = PLAIN
