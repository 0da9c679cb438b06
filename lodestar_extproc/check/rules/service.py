"""Traps in the cluster through which Envoy reaches Lodestar."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lodestar_extproc.check import stanzas
from lodestar_extproc.check.clusters import has_endpoints, protocol_options
from lodestar_extproc.check.finding import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lodestar_extproc.check.subject import Subject


SERVICE_PORT = 9002
"""Where `envoy/envoy.yaml` has Lodestar listen."""
WITHOUT_TRAFFIC_S = 5.0
"""Between two checks of a Lodestar that is not asked, because it is away; Envoy's default is 60."""


def whose_service(subject: Subject) -> Iterator[Fault]:
    """Other services are nobody's to judge: which is Lodestar has to be told."""
    for gateway in subject.gateways:
        others = gateway.manager.ext_proc
        if gateway.routes and others and not subject.service.names:
            yield Fault(others[0].place, subject.service.problem)


def service_cluster(subject: Subject) -> Iterator[Fault]:
    """The filters name a cluster that there is not, and Envoy goes on without asking."""
    yield from _without_endpoint(subject)
    known = {cluster.get("name").text for cluster in subject.resources.clusters}
    by_xds = any("cluster" in part.what for part in subject.resources.not_looked_at)
    for name in sorted(subject.service.names):
        # What Google's own client calls is an address, no cluster.
        if name not in known and not by_xds and ":" not in name and "/" not in name:
            clusters = subject.resources.root.get("static_resources", "clusters")
            yield Fault(
                clusters,
                f"there is no cluster {name}: nobody is asked, and nothing is told",
                (subject.append(clusters, stanzas.service_cluster(name, SERVICE_PORT)),),
            )


def _without_endpoint(subject: Subject) -> Iterator[Fault]:
    for cluster in subject.service.clusters:
        if not has_endpoints(cluster):
            name = cluster.get("name").text
            stanza = stanzas.service_cluster(name, SERVICE_PORT)
            assignment = cluster.get("load_assignment")
            yield Fault(
                assignment,
                f"cluster {name} has no endpoint: nobody is asked, and nothing is told",
                (subject.put(assignment, stanza["load_assignment"]),),
            )


def service_http2(subject: Subject) -> Iterator[Fault]:
    """A cluster speaks HTTP/1 unless told otherwise, and gRPC needs HTTP/2."""
    for cluster in subject.service.clusters:
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


def service_health_check(subject: Subject) -> Iterator[Fault]:
    """A frozen Lodestar costs every request the message timeout until a check finds it."""
    for cluster in subject.service.clusters:
        checks = cluster.get("health_checks")
        entries = list(checks.items())
        if not any(entry.get("grpc_health_check").value is not None for entry in entries):
            yield Fault(
                checks,
                "a frozen Lodestar would cost every request the whole message_timeout, for ever: "
                "nothing takes it out",
                (subject.append(checks, stanzas.grpc_health_check()),),
            )


def service_health_interval(subject: Subject) -> Iterator[Fault]:
    """A Lodestar that starts after Envoy is asked nothing until the next check."""
    for cluster in subject.service.clusters:
        for check in cluster.get("health_checks").items():
            interval = check.get("no_traffic_interval")
            held_s = interval.seconds if interval else 60.0
            if check.get("grpc_health_check").value is not None and (
                held_s is None or held_s > WITHOUT_TRAFFIC_S
            ):
                yield Fault(
                    interval,
                    f"a Lodestar that was away is asked again only after {held_s or 60:g} s",
                    (subject.put(interval, "0.5s"),),
                )


def service_panic_threshold(subject: Subject) -> Iterator[Fault]:
    """By default Envoy goes on asking hosts that it knows are unhealthy."""
    for cluster in subject.service.clusters:
        config = cluster.get("common_lb_config", "healthy_panic_threshold")
        # A threshold without a value is 0.
        if not config or (config.get("value").number or 0) > 0:
            yield Fault(
                config,
                "an unhealthy Lodestar is asked all the same: Envoy panics when half of a "
                "cluster is unhealthy",
                (subject.put(config, {"value": 0}),),
            )
