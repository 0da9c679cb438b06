"""Members of a cluster, read from its `load_assignment` or from an EDS file."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from lodestar_extproc.config.config_source import resources_in
from lodestar_extproc.config.node import read_node
from lodestar_extproc.config.pool import EdsFile, Member
from lodestar_extproc.config.reader import read_settings
from lodestar_extproc.config.schema import RESOURCES
from lodestar_extproc.config.settings import EndpointSettings

if TYPE_CHECKING:
    from lodestar_extproc.config.node import Node

NAMESPACE = "lodestar"
"""Our key in a cluster's and an endpoint's `metadata.filter_metadata`."""

MARK = "service"
"""In our block of a cluster: the cluster is Lodestar itself, not a pool."""

LEAVING = ("UNHEALTHY", "DRAINING", "TIMEOUT")
"""Health an assignment may give an endpoint that is to get no more requests."""


def settings_block(place: Node) -> Node:
    """Our block in the metadata of a cluster or an endpoint."""
    return place.get("metadata", "filter_metadata", NAMESPACE)


def is_marked(cluster: Node) -> bool:
    """Whether the cluster says that it is Lodestar itself."""
    return settings_block(cluster).get(MARK).flag


def read_members(assignment: Node, *, named: bool = False) -> tuple[Member, ...]:
    """The endpoints of a `ClusterLoadAssignment`, without those marked as leaving.

    Args:
        named: whether hosts may be names for DNS to resolve.

    Raises:
        ConfigError: an address that cannot be routed to, or a bad setting.
    """
    return tuple(
        _member(entry, named=named)
        for locality in assignment.get("endpoints").items()
        for entry in locality.get("lb_endpoints").items()
        if entry.get("health_status").text not in LEAVING
    )


def read_eds_members(eds: EdsFile) -> tuple[Member, ...]:
    """The endpoints that the file assigns to the cluster now.

    Raises:
        ConfigError: the file cannot be read, does not name the cluster, or is wrong inside.
    """
    root = read_node(eds.path, RESOURCES)
    names = []
    for assignment in resources_in(root, "ClusterLoadAssignment"):
        name = assignment.get("cluster_name")
        if name.text == eds.cluster_name:
            return read_members(assignment)
        names.append(name.text)
    found = ", ".join(names) or "none"
    raise root.get("resources").error(
        f"has no assignment with cluster_name {eds.cluster_name} (found: {found})"
    )


def _member(entry: Node, *, named: bool) -> Member:
    socket = entry.get("endpoint", "address", "socket_address")
    if not socket:
        raise entry.error("needs endpoint.address.socket_address: engines are reached over TCP")
    health_port = entry.get("endpoint", "health_check_config", "port_value")
    return Member(
        host=_host(socket.get("address"), named=named),
        port=_port(socket.get("port_value")),
        settings=read_settings(settings_block(entry), EndpointSettings),
        health_port=_port(health_port) if health_port else None,
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
