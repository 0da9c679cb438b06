"""ConnectionManager: an HTTP connection manager with its filters, logs and routes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lodestar_extproc.config.ext_proc_filter import ExtProcFilter, FilterOnRoute, on_route

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lodestar_extproc.config.node import Node

GRPC_ACCESS_LOG = "HttpGrpcAccessLogConfig"


@dataclass(frozen=True, slots=True)
class GrpcAccessLog:
    """A log that is sent to an access log service.

    Attributes:
        place: its entry in `access_log`, with the filter that holds entries back.
        common: its `common_config`.
    """

    place: Node
    common: Node


@dataclass(frozen=True, slots=True)
class Route:
    """One way from a virtual host to a cluster; a weighted route is several.

    Attributes:
        node: the route; `host` is the virtual host it stands in.
        cluster: empty where a header or a plugin names it.
        places: where filters may be overridden, outermost first.
    """

    node: Node
    host: Node
    cluster: str
    places: tuple[Node, ...]

    @property
    def retry_policy(self) -> Node:
        """The one that holds: the route's own, else the virtual host's."""
        own = self.node.get("route", "retry_policy")
        inherited = self.host.get("retry_policy")
        return inherited if inherited and not own else own

    def of(self, ext_proc: ExtProcFilter) -> FilterOnRoute:
        """The filter as it is here."""
        return on_route(ext_proc, self.places)


@dataclass(frozen=True, slots=True)
class ConnectionManager:
    """What a listener does with HTTP.

    Attributes:
        config: its `HttpConnectionManager`.
        ext_proc: its ext_proc filters, in order.
        route_tables: those that are written in a file; none where they come by xDS.
    """

    listener: Node
    config: Node
    ext_proc: tuple[ExtProcFilter, ...]
    route_tables: tuple[Node, ...]

    @property
    def grpc_access_logs(self) -> Iterator[GrpcAccessLog]:
        for place in self.config.get("access_log").items():
            config = place.get("typed_config")
            if config.type_name == GRPC_ACCESS_LOG:
                yield GrpcAccessLog(place, config.get("common_config"))

    @property
    def routes(self) -> Iterator[Route]:
        """Every route with a cluster."""
        for table in self.route_tables:
            for host in table.get("virtual_hosts").items():
                for node in _routes_of(host):
                    yield from _ways(table, host, node)


def _routes_of(host: Node) -> Iterator[Node]:
    """Those in its list, or those that its matcher chooses among."""
    yield from host.get("routes").items()
    yield from host.get("matcher").messages("Route")


def _ways(table: Node, host: Node, node: Node) -> Iterator[Route]:
    action, places = node.get("route"), (table, host, node)
    weighted = list(action.get("weighted_clusters", "clusters").items())
    for entry in weighted:
        yield Route(node, host, entry.get("name").text, (*places, entry))
    if action and not weighted:
        yield Route(node, host, action.get("cluster").text, places)
