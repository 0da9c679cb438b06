"""Traps in the cluster through which Envoy reaches Lodestar."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lodestar_extproc.check import stanzas
from lodestar_extproc.check.clusters import DEFAULT_MAX_REQUESTS, max_requests, protocol_options
from lodestar_extproc.check.finding import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lodestar_extproc.check.subject import Subject


def service_http2(subject: Subject) -> Iterator[Fault]:
    """A cluster speaks HTTP/1 unless told otherwise, and gRPC needs HTTP/2."""
    for cluster in subject.services:
        options = protocol_options(cluster)
        config = options.get("explicit_http_config")
        places = (config, cluster)
        spoken = any(place.get("http2_protocol_options").value is not None for place in places)
        # Negotiated with the server, which over TLS offers HTTP/2.
        if not spoken and options.get("auto_config").value is None:
            cure: dict[str, object] = {"http2_protocol_options": {}}
            patches = [subject.put(config, cure)]
            if not options:
                patches = [subject.put(options, stanzas.http_options(explicit_http_config=cure))]
            yield Fault(
                options, "no gRPC call gets through: the cluster speaks HTTP/1", tuple(patches)
            )


def service_max_requests(subject: Subject) -> Iterator[Fault]:
    """Every ext_proc stream counts as a request, and the default limit is 1024 at once."""
    for cluster in subject.services:
        limit, patches = max_requests(subject, cluster)
        if (limit.number or DEFAULT_MAX_REQUESTS) <= DEFAULT_MAX_REQUESTS:
            held = limit.text or DEFAULT_MAX_REQUESTS
            yield Fault(
                limit,
                f"Envoy opens at most {held} streams to Lodestar at once; the requests above that "
                "go unrouted",
                patches,
            )


def service_health_check(subject: Subject) -> Iterator[Fault]:
    """A frozen Lodestar costs every request the message timeout until a check finds it."""
    for cluster in subject.services:
        checks = cluster.get("health_checks")
        entries = list(checks.items())
        if not any(entry.get("grpc_health_check").value is not None for entry in entries):
            yield Fault(
                checks,
                "a frozen Lodestar would cost every request the whole message_timeout, for ever: "
                "nothing takes it out",
                (subject.put(checks, [*(e.value for e in entries), stanzas.grpc_health_check()]),),
            )


def service_panic_threshold(subject: Subject) -> Iterator[Fault]:
    """By default Envoy goes on asking hosts that it knows are unhealthy."""
    for cluster in subject.services:
        config = cluster.get("common_lb_config", "healthy_panic_threshold")
        # A threshold without a value is 0.
        if not config or (config.get("value").number or 0) > 0:
            yield Fault(
                config,
                "an unhealthy Lodestar is asked all the same: Envoy panics when half of a "
                "cluster is unhealthy",
                (subject.put(config, {"value": 0}),),
            )
