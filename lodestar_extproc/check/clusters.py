"""What the rules for both kinds of clusters share: HTTP options and limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lodestar_extproc.check.finding import Patch
    from lodestar_extproc.check.subject import Subject
    from lodestar_extproc.config.node import Node

DEFAULT_MAX_REQUESTS = 1024
"""Requests that Envoy sends to a cluster at once, where nothing else is set."""
MAX_REQUESTS = 65536
"""What the cure sets: more than any fleet of engines has in flight."""


def protocol_options(cluster: Node) -> Node:
    return cluster.get(
        "typed_extension_protocol_options", "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    )


def max_requests(subject: Subject, cluster: Node) -> tuple[Node, tuple[Patch, ...]]:
    """The limit on requests at once, of the default priority, and what raises it."""
    thresholds = cluster.get("circuit_breakers", "thresholds")
    raised = {"max_requests": MAX_REQUESTS, "max_pending_requests": MAX_REQUESTS}
    for entry in thresholds.items():
        if entry.get("priority").text in ("", "DEFAULT"):
            patches = (
                subject.put(entry.get(name), value)
                for name, value in raised.items()
                if (entry.get(name).number or 0) < value
            )
            return entry.get("max_requests"), tuple(patches)
    patch = subject.put(thresholds, [*(e.value for e in thresholds.items()), raised])
    return thresholds.get("max_requests"), (patch,)
