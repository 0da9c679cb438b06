"""Where things stand in an Envoy bootstrap: clusters, connection managers, filters, routes.

It reads nothing into them; `reader.py` takes settings from these places and `check/` judges them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lodestar_extproc.names import METADATA_NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lodestar_extproc.config.node import Node


@dataclass(frozen=True, slots=True)
class Route:
    """One way from a virtual host to a cluster; a weighted route is several.

    Attributes:
        node: the entry in `routes`; `host` is the virtual host it stands in.
        cluster: empty where a header or a plugin names it.
        overrides: the `ExtProcPerRoute`s that hold here, outermost first.
    """

    node: Node
    host: Node
    cluster: str
    overrides: tuple[Node, ...]

    @property
    def retry_policy(self) -> Node:
        """The one that holds: the route's own, else the virtual host's."""
        own = self.node.get("route", "retry_policy")
        inherited = self.host.get("retry_policy")
        return inherited if inherited and not own else own

    @property
    def skips_ext_proc(self) -> bool:
        return any(override.get("disabled").flag for override in self.overrides)


def clusters(root: Node) -> Iterator[Node]:
    yield from root.get("static_resources", "clusters").items()


def cluster_named(root: Node, name: str) -> Node | None:
    return next((c for c in clusters(root) if c.get("name").text == name), None)


def listeners(root: Node) -> Iterator[Node]:
    yield from root.get("static_resources", "listeners").items()


def managers(listener: Node) -> Iterator[Node]:
    """The configurations of the HTTP connection managers of *listener*."""
    chains = [*listener.get("filter_chains").items(), listener.get("default_filter_chain")]
    for chain in chains:
        for network_filter in chain.get("filters").items():
            config = network_filter.get("typed_config")
            if config.type_name == "HttpConnectionManager":
                yield config


def all_managers(root: Node) -> Iterator[Node]:
    for listener in listeners(root):
        yield from managers(listener)


def ext_proc_filters(manager: Node) -> Iterator[Node]:
    for http_filter in manager.get("http_filters").items():
        config = http_filter.get("typed_config")
        if config.type_name == "ExternalProcessor" and not http_filter.get("disabled").flag:
            yield config


def decision_filter(manager: Node) -> Node | None:
    """The ext_proc filter that asks for a choice.

    Among several that Envoy waits for: one whose metadata is taken, else one that sees the prompt.
    """

    def likeness(config: Node) -> tuple[bool, bool]:
        return METADATA_NAMESPACE in receiving_namespaces(config), bool(request_body_mode(config))

    waiting = [f for f in ext_proc_filters(manager) if not f.get("observability_mode").flag]
    return max(waiting, key=likeness, default=None)


def observing_filter(manager: Node) -> Node | None:
    """The ext_proc filter that shows answers without waiting."""
    for config in ext_proc_filters(manager):
        if config.get("observability_mode").flag and response_body_mode(config):
            return config
    return None


def request_body_mode(config: Node) -> str:
    """`BUFFERED`, `STREAMED` ...; empty where no body is sent."""
    return config.get("processing_mode", "request_body_mode").text.removesuffix("NONE")


def response_body_mode(config: Node) -> str:
    return config.get("processing_mode", "response_body_mode").text.removesuffix("NONE")


def receiving_namespaces(config: Node) -> tuple[str, ...]:
    """The namespaces of dynamic metadata that Envoy takes from an ext_proc service."""
    names = config.get("metadata_options", "receiving_namespaces", "untyped")
    return tuple(name.text for name in names.items())


def forwarding_namespaces(config: Node) -> tuple[str, ...]:
    """The namespaces of dynamic metadata that Envoy shows to an ext_proc service."""
    names = config.get("metadata_options", "forwarding_namespaces", "untyped")
    return tuple(name.text for name in names.items())


def grpc_cluster(config: Node) -> str:
    """The cluster that a filter's or an access log's `grpc_service` names."""
    return config.get("grpc_service", "envoy_grpc", "cluster_name").text


def grpc_access_logs(manager: Node) -> Iterator[Node]:
    """The `common_config` of each gRPC access log."""
    for log in manager.get("access_log").items():
        config = log.get("typed_config")
        if config.type_name == "HttpGrpcAccessLogConfig":
            yield config.get("common_config")


def routes(manager: Node) -> Iterator[Route]:
    """Every route with a cluster, of the configuration written in the file."""
    table = manager.get("route_config")
    for host in table.get("virtual_hosts").items():
        for node in host.get("routes").items():
            overrides = [_override(table), _override(host), _override(node)]
            present = tuple(override for override in overrides if override is not None)
            for cluster, own in _destinations(node.get("route")):
                yield Route(node, host, cluster, present if own is None else (*present, own))


def _destinations(action: Node) -> Iterator[tuple[str, Node | None]]:
    """Each cluster a route may lead to, with its own `ExtProcPerRoute`."""
    weighted = list(action.get("weighted_clusters", "clusters").items())
    for entry in weighted:
        yield entry.get("name").text, _override(entry)
    if action and not weighted:
        yield action.get("cluster").text, None


def _override(place: Node) -> Node | None:
    for _, config in place.get("typed_per_filter_config").entries():
        if config.type_name == "ExtProcPerRoute":
            return config
    return None
