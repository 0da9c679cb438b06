"""ServeOptions: how to run, apart from what the configuration says."""

from __future__ import annotations

from dataclasses import dataclass

from lodestar_extproc.admin.access import ANYBODY, AdminAccess
from lodestar_extproc.server_tls import ServerTls
from lodestar_extproc.service.worker import WorkerPlace
from lodestar_extproc.transport.choice import DEFAULT_TRANSPORT


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How to run, apart from what the configuration says.

    Attributes:
        listen: addresses for Envoy, `host:port` or `unix:/path`; empty takes the configuration's.
        tls: how to encrypt the way from Envoy; None for plain text.
        transport: what carries gRPC calls, of `transport.choice.TRANSPORTS`.
        health: addresses for gRPC health checks alone, beside Envoy's; never encrypted.
        peers: `host:port` of other replicas, beside those that the configuration names.
        admin: `host:port` of the HTTP server for operators.
        admin_access: who may ask there.
        alias_metrics: whether metrics are shown under other pickers' names, too.
        tracing: whether spans are sent, by OpenTelemetry's SDK.
        drain_s: how long to serve on after health checks have begun to fail.
        grace_s: how long open streams may then take to end.
        worker: which of several this process is; None for one that is alone.
    """

    listen: tuple[str, ...] = ()
    tls: ServerTls | None = None
    transport: str = DEFAULT_TRANSPORT
    health: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    admin: str = "127.0.0.1:9090"
    admin_access: AdminAccess = ANYBODY
    alias_metrics: bool = False
    tracing: bool = False
    drain_s: float = 1.0
    grace_s: float = 5.0
    worker: WorkerPlace | None = None
