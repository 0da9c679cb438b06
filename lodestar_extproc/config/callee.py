"""Whom a filter or an access log calls over gRPC, by name and by address."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lodestar_extproc.config.ext_proc_filter import FilterOnRoute
    from lodestar_extproc.config.node import Node

WILDCARDS = frozenset({"0.0.0.0", "[::]"})  # noqa: S104  (compared, not bound)


def callee(client: Node | FilterOnRoute) -> str:
    """The cluster in the `grpc_service` of *client*, or the URI of Google's gRPC client."""
    service = client.get("grpc_service")
    cluster = service.get("envoy_grpc", "cluster_name").text
    return cluster or service.get("google_grpc", "target_uri").text


def addresses_of(cluster: Node | None, name: str) -> tuple[str, ...]:
    """Where the endpoints of *cluster* are, `host:port` or `unix:path`; of a URI, the URI itself.

    Args:
        name: the cluster's, or the URI.
    """
    if cluster is None:
        return (name.removeprefix("dns:").lstrip("/"),) if ":" in name else ()
    localities = cluster.get("load_assignment", "endpoints").items()
    entries = (entry for locality in localities for entry in locality.get("lb_endpoints").items())
    return tuple(
        filter(None, (address_text(entry.get("endpoint", "address")) for entry in entries))
    )


def address_text(address: Node) -> str:
    """An `Address` as gRPC writes it; empty where it is none that can be connected to.

    A path that begins with `@` is a name of Linux's abstract sockets, no file.
    """
    if socket := address.get("socket_address"):
        host = socket.get("address").text
        bracketed = f"[{host}]" if ":" in host else host
        return f"{bracketed}:{socket.get('port_value').text}"
    path = address.get("pipe", "path").text
    if path.startswith("@"):
        return f"unix-abstract:{path[1:]}"
    return f"unix:{path}" if path else ""


def same_place(address: str, listened: str) -> bool:
    """Whether who listens at *listened* may be reached by *address*.

    A name may lead anywhere: there the ports have to do.

    >>> same_place("lodestar:9002", "10.0.0.5:9002"), same_place("10.0.0.9:9002", "10.0.0.5:9002")
    (True, False)
    """
    if address == listened:
        return True
    (host, _, port), (own_host, _, own_port) = address.rpartition(":"), listened.rpartition(":")
    return port == own_port and (own_host in WILDCARDS or not _is_ip(host))


def _is_ip(host: str) -> bool:
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
