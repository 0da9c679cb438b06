"""What the rules for both kinds of clusters share: HTTP options, endpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lodestar_extproc.config.node import Node


def protocol_options(cluster: Node) -> Node:
    return cluster.get(
        "typed_extension_protocol_options", "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    )


def has_endpoints(cluster: Node) -> bool:
    """Whether it has any, or has them from elsewhere: EDS, or a cluster of another kind."""
    if cluster.get("type").text == "EDS" or cluster.get("cluster_type"):
        return True
    localities = cluster.get("load_assignment", "endpoints").items()
    entries = (entry for locality in localities for entry in locality.get("lb_endpoints").items())
    # By DNS, Envoy accepts an endpoint that has no address.
    return any(entry.get("endpoint", "address") for entry in entries)
