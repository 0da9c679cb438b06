"""Members of a cluster, read from its `load_assignment` or from an EDS file."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from lodestar_extproc.config.config_source import resources_in
from lodestar_extproc.config.endpoint_settings import EndpointSettings
from lodestar_extproc.config.member import Member
from lodestar_extproc.config.node import read_node
from lodestar_extproc.config.pool import Assignment, EdsFile
from lodestar_extproc.config.reader import read_settings
from lodestar_extproc.config.schema import RESOURCES
from lodestar_extproc.config.upstream import OVERPROVISIONING, PLAINLY
from lodestar_extproc.config.upstream_tls import match_metadata

if TYPE_CHECKING:
    from lodestar_extproc.config.node import Node
    from lodestar_extproc.config.upstream import Transports

NAMESPACE = "lodestar"
"""Our key in a cluster's and an endpoint's `metadata.filter_metadata`."""

MARK = "service"
"""In our block of a cluster: the cluster is Lodestar itself, not a pool."""

PERCENT = 100.0  # in 1
LEAVING = ("UNHEALTHY", "DRAINING", "TIMEOUT")
"""Health an assignment may give an endpoint that is to get no more requests."""


def settings_block(place: Node) -> Node:
    """Our block in the metadata of a cluster or an endpoint."""
    return place.get("metadata", "filter_metadata", NAMESPACE)


def is_marked(cluster: Node) -> bool:
    """Whether the cluster says that it is Lodestar itself."""
    return settings_block(cluster).get(MARK).flag


def read_assignment(
    assignment: Node, transports: Transports = PLAINLY, *, named: bool = False
) -> Assignment:
    """A `ClusterLoadAssignment`, without the endpoints that are marked as leaving.

    Args:
        transports: those of the cluster.
        named: whether hosts may be names for DNS to resolve.

    Raises:
        ConfigError: an address that cannot be routed to, or a bad setting.
    """
    members = tuple(
        _member(entry, int(locality.get("priority").number or 0), transports, named=named)
        for locality in assignment.get("endpoints").items()
        for entry in locality.get("lb_endpoints").items()
        if entry.get("health_status").text not in LEAVING
    )
    factor = assignment.get("policy", "overprovisioning_factor").number
    return Assignment(members, OVERPROVISIONING if factor is None else factor / PERCENT)


def read_eds_assignment(eds: EdsFile) -> Assignment:
    """What the file assigns to the cluster now.

    Raises:
        ConfigError: the file cannot be read, does not name the cluster, or is wrong inside.
    """
    root = read_node(eds.path, RESOURCES)
    found = {a.get("cluster_name").text: a for a in resources_in(root, "ClusterLoadAssignment")}
    names = ", ".join(found) or "none"
    resources = root.get("resources")
    if eds.cluster_name not in found:
        problem = f"has no assignment with cluster_name {eds.cluster_name} (found: {names})"
        raise resources.error(problem)
    if len(list(resources.items())) > 1:
        raise resources.error(f"Envoy takes one assignment from a file, and here are {names}")
    return read_assignment(found[eds.cluster_name], eds.transports)


def read_eds_members(eds: EdsFile) -> tuple[Member, ...]:
    """The endpoints that the file assigns to the cluster now.

    Raises:
        ConfigError: as `read_eds_assignment`.
    """
    return read_eds_assignment(eds).members


def _member(entry: Node, priority: int, transports: Transports, *, named: bool) -> Member:
    endpoint = entry.get("endpoint")
    socket = endpoint.get("address", "socket_address")
    if not socket:
        raise entry.error("needs endpoint.address.socket_address: engines are reached over TCP")
    check = endpoint.get("health_check_config")
    return Member(
        host=_host(socket.get("address"), named=named),
        port=_port(socket.get("port_value")),
        settings=read_settings(settings_block(entry), EndpointSettings),
        # 0 is what a port is that was not written.
        health_port=_port(check.get("port_value")) if check.get("port_value").number else None,
        health_host=check.get("hostname").text,
        checked=not check.get("disable_active_health_check").flag,
        hostname=endpoint.get("hostname").text,
        priority=priority,
        degraded=entry.get("health_status").text == "DEGRADED",
        transport=transports.of(match_metadata(entry)),
    )


def _host(address: Node, *, named: bool) -> str:
    try:
        return ip_address(address.text).compressed
    except ValueError:
        if named and address.text:
            return address.text
        problem = (
            f'"{address.text}" is not an IP address; a name needs a cluster of type STRICT_DNS'
        )
        raise address.error(problem) from None


def _port(port: Node) -> int:
    number = port.number
    if number is None or not 1 <= number <= 65535 or not number.is_integer():
        raise port.error(f"{port.text or 'nothing'} is not a port, 1 to 65535")
    return int(number)
