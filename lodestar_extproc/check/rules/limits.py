"""How much Envoy has in flight to a cluster at once, and how many retries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lodestar_extproc.check.finding import Fault
from lodestar_extproc.check.stanzas import MAX_REQUESTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lodestar_extproc.check.finding import Patch
    from lodestar_extproc.check.subject import Subject
    from lodestar_extproc.config.node import Node

DEFAULT_MAX_REQUESTS = 1024
"""Of requests, of those that wait and of connections, each; Envoy's own."""
DEFAULT_MAX_RETRIES, MAX_RETRIES = 3, 256
"""Envoy's own; and what `envoy/envoy.yaml` sets, as many requests as one engine runs."""
POOL_LIMITS = ("max_connections", "max_pending_requests", "max_requests")
SERVICE_LIMITS = ("max_requests", "max_pending_requests")
"""By HTTP/2 all requests share a few connections."""


def pool_max_requests(subject: Subject) -> Iterator[Fault]:
    """Envoy sends at most 1024 requests at once to a cluster that sets no limit."""
    for pool in subject.pools:
        entry = _thresholds(pool)
        unset = [name for name in POOL_LIMITS if not entry.get(name)]
        if unset:
            yield Fault(
                entry.get(unset[0]),
                f"{', '.join(unset)} {'is' if len(unset) == 1 else 'are'} 1024, Envoy's default: "
                "more requests at once wait in Envoy or get 503. Set the limit you want",
                _raised(subject, pool, dict.fromkeys(unset, MAX_REQUESTS)),
            )


def pool_max_retries(subject: Subject) -> Iterator[Fault]:
    """Envoy retries at most 3 requests at once in a cluster that sets no limit."""
    for pool in subject.pools:
        entry = _thresholds(pool)
        limit = entry.get("max_retries")
        # A budget takes the place of the limit.
        if entry.get("retry_budget").value is None and not limit:
            yield Fault(
                limit,
                f"at most {DEFAULT_MAX_RETRIES} requests are retried at once, Envoy's default: of "
                "an engine that dies the others fail",
                _raised(subject, pool, {"max_retries": MAX_RETRIES}),
            )


def service_max_requests(subject: Subject) -> Iterator[Fault]:
    """Every ext_proc stream counts as a request, and the default limit is 1024 at once."""
    for cluster in subject.service.clusters:
        entry = _thresholds(cluster)
        low = [
            name
            for name in SERVICE_LIMITS
            if (entry.get(name).number or DEFAULT_MAX_REQUESTS) <= DEFAULT_MAX_REQUESTS
        ]
        if low:
            limit = entry.get(low[0])
            held = limit.text or DEFAULT_MAX_REQUESTS
            yield Fault(
                limit,
                f"Envoy opens at most {held} streams to Lodestar at once; the requests above that "
                "go unrouted",
                _raised(subject, cluster, dict.fromkeys(low, MAX_REQUESTS)),
            )


def _thresholds(cluster: Node) -> Node:
    """The limits of the default priority, or where they would stand."""
    thresholds = cluster.get("circuit_breakers", "thresholds")
    for entry in thresholds.items():
        if entry.get("priority").text in ("", "DEFAULT"):
            return entry
    return thresholds


def _raised(subject: Subject, cluster: Node, limits: dict[str, int]) -> tuple[Patch, ...]:
    entry = _thresholds(cluster)
    if entry.kind.listed or not entry:
        return (subject.append(cluster.get("circuit_breakers", "thresholds"), limits),)
    return tuple(subject.put(entry.get(name), value) for name, value in limits.items())
