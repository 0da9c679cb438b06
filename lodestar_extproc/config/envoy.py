"""EnvoyConfig: what an Envoy bootstrap says to us, and read_envoy_config(), which reads it.

Fields of Envoy's own that are unknown here are passed over; our own are checked to the letter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lodestar_extproc.config import envoy_tree as tree
from lodestar_extproc.config.errors import NotEnvoyConfig
from lodestar_extproc.config.members import NAMESPACE, read_members, settings_block
from lodestar_extproc.config.node import read_node
from lodestar_extproc.config.old_spelling import OldSpelling, old_spellings
from lodestar_extproc.config.overrides import RouteOverride, old_keys, read_overrides
from lodestar_extproc.config.pool import DNS_REFRESH_S, EdsFile, Pool, Resolution
from lodestar_extproc.config.reader import read_settings, unknown
from lodestar_extproc.config.schema import BOOTSTRAP
from lodestar_extproc.config.settings import PoolSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from lodestar_extproc.config.node import Node

MIN_DNS_REFRESH_S = 1.0
"""A cluster may ask for less, down to 1 ms: no resolver is asked more often than this."""
MAX_DNS_REFRESH_S = 60.0
"""A cluster may ask for hours: an engine that moved is missed for no longer than this."""


@dataclass(frozen=True, slots=True)
class TimingSources:
    """From where Envoy lets us see how an answer went; each is optional.

    Attributes:
        request_body_mode: of the deciding ext_proc filter; empty where there is none.
        response_body_mode: of the same filter; empty where it sees no answers.
        observer: whether a second ext_proc filter shows answers without Envoy waiting.
        access_log_tags: the custom tags of the gRPC access log; None where there is none.
    """

    request_body_mode: str = ""
    response_body_mode: str = ""
    observer: bool = False
    access_log_tags: frozenset[str] | None = None

    @property
    def first_token(self) -> bool:
        """Whether a first token is seen when it comes."""
        return self.observer or bool(self.response_body_mode)


@dataclass(frozen=True, slots=True)
class EnvoyConfig:
    """What `serve` needs from an Envoy bootstrap.

    Attributes:
        extproc_address: where Envoy expects the ext_proc service, `host:port` or `unix:path`; the
            host may be a name. None where the file does not say.
        access_log_address: the same of the access log service.
        old_spellings: where it says something by a name of before.
    """

    path: Path
    pools: tuple[Pool, ...]
    overrides: tuple[RouteOverride, ...] = ()
    sources: TimingSources = TimingSources()
    extproc_address: str | None = None
    access_log_address: str | None = None
    old_spellings: tuple[OldSpelling, ...] = field(default=(), compare=False)

    def pool(self, name: str) -> Pool | None:
        return next((pool for pool in self.pools if pool.name == name), None)


def read_envoy_config(path: Path) -> EnvoyConfig:
    """Read the Envoy bootstrap at *path*, YAML or JSON.

    Raises:
        NotEnvoyConfig: it is something else.
        ConfigError: there is no pool, or a setting in it is wrong.
    """
    return config_of(read_root(path), path)


def config_of(root: Node, path: Path) -> EnvoyConfig:
    """What *root*, read from *path*, says.

    Raises:
        ConfigError: there is no pool, or a setting in it is wrong.
    """
    clusters = [cluster for cluster in tree.clusters(root) if settings_block(cluster)]
    pools = tuple(read_pool(cluster, path) for cluster in clusters)
    if not pools:
        raise _no_pool(root)
    decision = _first(root, tree.decision_filter)
    log = next((log for m in tree.all_managers(root) for log in tree.grpc_access_logs(m)), None)
    return EnvoyConfig(
        path=path,
        pools=pools,
        overrides=read_overrides(root, [pool.name for pool in pools]),
        sources=_sources(decision, _first(root, tree.observing_filter), log),
        extproc_address=_address(root, decision),
        access_log_address=_address(root, log),
        old_spellings=(
            *(old for c in clusters for old in old_spellings(settings_block(c), PoolSettings)),
            *old_keys(root),
        ),
    )


def read_root(path: Path) -> Node:
    """The whole file, if it is an Envoy bootstrap.

    Raises:
        NotEnvoyConfig: it is something else.
        ConfigError: it cannot be read.
    """
    root = read_node(path, BOOTSTRAP)
    if not root.get("static_resources"):
        problem = "is not an Envoy bootstrap: it has no static_resources"
        raise NotEnvoyConfig(problem, file=str(path))
    return root


def read_pool(cluster: Node, path: Path) -> Pool:
    """The pool that *cluster* is.

    Raises:
        ConfigError: a type of cluster that cannot be one, or a wrong setting or address.
    """
    resolution = _resolution(cluster)
    dynamic = resolution in (Resolution.STRICT_DNS, Resolution.LOGICAL_DNS)
    return Pool(
        name=cluster.get("name").text,
        settings=read_settings(settings_block(cluster), PoolSettings),
        resolution=resolution,
        members=read_members(cluster.get("load_assignment"), named=dynamic),
        eds=_eds_file(cluster, path) if resolution is Resolution.EDS else None,
        dns_refresh_s=_dns_refresh_s(cluster),
        line=cluster.line,
    )


def _resolution(cluster: Node) -> Resolution:
    written = cluster.get("type")
    dns = cluster.get("cluster_type", "typed_config")
    if dns.type_name == "DnsCluster":
        single = dns.get("all_addresses_in_single_endpoint").flag
        return Resolution.LOGICAL_DNS if single else Resolution.STRICT_DNS
    name = "cluster_type" if cluster.get("cluster_type") else written.text or Resolution.STATIC
    try:
        return Resolution(name)
    except ValueError:
        allowed = ", ".join(Resolution)
        raise written.error(f"a pool's cluster is one of {allowed}, not {name}") from None


def _dns_refresh_s(cluster: Node) -> float:
    places = (cluster, cluster.get("cluster_type", "typed_config"))
    written = (place.get("dns_refresh_rate").seconds for place in places)
    refresh_s = next(filter(None, written), DNS_REFRESH_S)
    return min(max(refresh_s, MIN_DNS_REFRESH_S), MAX_DNS_REFRESH_S)


def _eds_file(cluster: Node, path: Path) -> EdsFile:
    source = cluster.get("eds_cluster_config", "eds_config")
    written = source.get("path_config_source", "path").text or source.get("path").text
    if not written:
        raise source.error("a pool of type EDS needs path_config_source.path: a file")
    file = Path(written)
    # Envoy may run where the same folder has another name, in a container for instance.
    beside = path.parent / file.name
    named = cluster.get("eds_cluster_config", "service_name") or cluster.get("name")
    return EdsFile(file if file.exists() or not beside.exists() else beside, named.text)


def _no_pool(root: Node) -> Exception:
    for cluster in tree.clusters(root):
        for name, node in cluster.get("metadata", "filter_metadata").entries():
            if "lode" in name.lower() or "star" in name.lower():
                return node.error(unknown(name, [NAMESPACE]))
    return root.get("static_resources", "clusters").error(
        f"no cluster is a pool: give your engines' cluster metadata.filter_metadata.{NAMESPACE}, "
        "for example {policy: learned}"
    )


def _sources(decision: Node | None, observer: Node | None, log: Node | None) -> TimingSources:
    tags = None
    if log is not None:
        tags = frozenset(tag.get("tag").text for tag in log.get("custom_tags").items())
    return TimingSources(
        request_body_mode=tree.request_body_mode(decision) if decision else "",
        response_body_mode=tree.response_body_mode(decision) if decision else "",
        observer=observer is not None,
        access_log_tags=tags,
    )


def _first(root: Node, find: Callable[[Node], Node | None]) -> Node | None:
    return next(filter(None, (find(manager) for manager in tree.all_managers(root))), None)


def _address(root: Node, client: Node | None) -> str | None:
    """Where the cluster that *client* calls has its first endpoint."""
    if client is None:
        return None
    cluster = tree.cluster_named(root, tree.grpc_cluster(client))
    if cluster is None:
        return client.get("grpc_service", "google_grpc", "target_uri").text or None
    localities = cluster.get("load_assignment", "endpoints").items()
    entries = (entry for locality in localities for entry in locality.get("lb_endpoints").items())
    for entry in entries:
        address = entry.get("endpoint", "address")
        socket = address.get("socket_address")
        if socket:
            host = socket.get("address").text
            bracketed = f"[{host}]" if ":" in host else host
            return f"{bracketed}:{socket.get('port_value').text}"
        return f"unix:{address.get('pipe', 'path').text}"
    return None
