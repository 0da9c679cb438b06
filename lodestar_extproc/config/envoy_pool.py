"""read_pool(): what an Envoy cluster says of the endpoints in it."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from lodestar_extproc.config.callee import address_text
from lodestar_extproc.config.config_source import source_file
from lodestar_extproc.config.members import read_assignment, settings_block
from lodestar_extproc.config.not_looked_at import ENDPOINTS_OF_XDS, NotLookedAt
from lodestar_extproc.config.pool import EdsFile, Pool, Resolution
from lodestar_extproc.config.reader import read_settings
from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.config.upstream import (
    DNS_REFRESH_S,
    EXPECTED_STATUSES,
    PANIC_RATIO,
    DnsFamily,
    DnsLookup,
    HttpHealthCheck,
    Transports,
)
from lodestar_extproc.config.upstream_tls import read_transports

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lodestar_extproc.config.node import Node

MIN_DNS_REFRESH_S = 1.0
"""A cluster may ask for less, down to 1 ms: no resolver is asked more often than this."""
MAX_DNS_REFRESH_S = 60.0
"""A cluster may ask for hours: an engine that moved is missed for no longer than this."""
CLUSTER_TYPES: Mapping[str, Resolution] = MappingProxyType(
    {f"envoy.cluster.{resolution.lower()}": resolution for resolution in Resolution}
)
"""What `cluster_type` calls the types that `type` calls otherwise."""
PERCENT = 100.0  # in 1


def read_pool(cluster: Node, root: Node, path: Path) -> Pool:
    """The pool that *cluster* is, in the bootstrap *root*, read from *path*.

    Raises:
        ConfigError: a type of cluster that cannot be one, or a wrong setting or address.
    """
    resolution = _resolution(cluster)
    dynamic = resolution in (Resolution.STRICT_DNS, Resolution.LOGICAL_DNS)
    transports = read_transports(cluster, root, path)
    panic = cluster.get("common_lb_config", "healthy_panic_threshold", "value").number
    assignment = read_assignment(cluster.get("load_assignment"), transports, named=dynamic)
    return Pool(
        name=cluster.get("name").text,
        settings=read_settings(settings_block(cluster), PoolSettings),
        resolution=resolution,
        members=assignment.members,
        overprovisioning=assignment.overprovisioning,
        panic_ratio=PANIC_RATIO if panic is None else panic / PERCENT,
        eds=_eds_file(cluster, transports, path) if resolution is Resolution.EDS else None,
        dns=_dns(cluster, root),
        health=_health(cluster),
        transports=transports,
        line=cluster.line,
    )


def unread(cluster: Node, pool: Pool) -> Iterator[NotLookedAt]:
    """What of the *pool* in *cluster* stands elsewhere."""
    if pool.endpoints_by_xds:
        yield NotLookedAt(ENDPOINTS_OF_XDS, cluster.get("eds_cluster_config"))
    for entry in cluster.get("load_assignment", "endpoints").items():
        if entry.get("leds_cluster_locality_config"):
            yield NotLookedAt("its endpoints of xDS (LEDS)", entry)
    sockets = (pool.transports.otherwise, *(match.transport for match in pool.transports.matches))
    for transport in sockets:
        if transport.unread:
            yield NotLookedAt(transport.unread, cluster.get("transport_socket"))
    if pool.dns.unread and pool.resolution.by_dns:
        yield NotLookedAt(pool.dns.unread, cluster)


def _resolution(cluster: Node) -> Resolution:
    written, custom = cluster.get("type"), cluster.get("cluster_type")
    dns = custom.get("typed_config")
    if dns.type_name == "DnsCluster":
        single = dns.get("all_addresses_in_single_endpoint").flag
        return Resolution.LOGICAL_DNS if single else Resolution.STRICT_DNS
    if resolution := CLUSTER_TYPES.get(custom.get("name").text):
        return resolution
    name = "cluster_type" if custom else written.text or Resolution.STATIC
    try:
        return Resolution(name)
    except ValueError:
        allowed = ", ".join(Resolution)
        raise written.error(f"a pool's cluster is one of {allowed}, not {name}") from None


def _eds_file(cluster: Node, transports: Transports, path: Path) -> EdsFile | None:
    """None where the endpoints come by xDS."""
    source = cluster.get("eds_cluster_config", "eds_config")
    if not source:
        raise source.error("a pool of type EDS needs path_config_source.path: a file")
    file = source_file(source, path)
    named = cluster.get("eds_cluster_config", "service_name") or cluster.get("name")
    return EdsFile(file, named.text, transports) if file else None


def _dns(cluster: Node, root: Node) -> DnsLookup:
    places = (cluster, cluster.get("cluster_type", "typed_config"))

    def first(name: str) -> Node:
        return next(filter(None, (place.get(name) for place in places)), cluster.get(name))

    refresh_s = first("dns_refresh_rate").seconds or DNS_REFRESH_S
    family = first("dns_lookup_family").text
    typed = first("typed_dns_resolver_config") or root.get("typed_dns_resolver_config")
    resolvers, unread_part = _resolvers(typed.get("typed_config"))
    older = (cluster.get("dns_resolution_config", "resolvers"), cluster.get("dns_resolvers"))
    if not typed:
        resolvers = tuple(address_text(a) for named in older for a in named.items())
    return DnsLookup(
        family=DnsFamily(family) if family in set(DnsFamily) else DnsFamily.AUTO,
        resolvers=resolvers,
        refresh_s=min(max(refresh_s, MIN_DNS_REFRESH_S), MAX_DNS_REFRESH_S),
        respect_ttl=first("respect_dns_ttl").flag,
        unread=unread_part,
    )


def _resolvers(config: Node) -> tuple[tuple[str, ...], str]:
    """The name servers of a resolver's *config*, and what of it cannot be followed."""
    match config.type_name:
        case "" | "GetAddrInfoDnsResolverConfig":
            return (), ""
        case "CaresDnsResolverConfig":
            # As a fallback they are asked where the system has none.
            fallback = config.get("use_resolvers_as_fallback").flag
            named = () if fallback else config.get("resolvers").items()
            return tuple(address_text(address) for address in named), ""
        case other:
            return (), f"how {other} resolves names"


def _health(cluster: Node) -> HttpHealthCheck | None:
    """The first of its checks that speaks HTTP."""
    for check in cluster.get("health_checks").items():
        http = check.get("http_health_check")
        if not http:
            continue
        port = check.get("alt_port").number
        ranges = tuple(
            (int(each.get("start").number or 0), int(each.get("end").number or 0))
            for each in http.get("expected_statuses").items()
        )
        return HttpHealthCheck(
            path=http.get("path").text,
            host=http.get("host").text,
            method=http.get("method").text.replace("METHOD_UNSPECIFIED", "") or "GET",
            statuses=ranges or EXPECTED_STATUSES,
            port=None if port is None else int(port),
            interval_s=check.get("interval").seconds,
            timeout_s=check.get("timeout").seconds,
        )
    return None
