"""Resources: the listeners, connection managers and clusters of an Envoy, from all its files.

What does not stand in a file, because a control plane sends it, is said in `not_looked_at`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lodestar_extproc.config.config_source import resources_in, source_file
from lodestar_extproc.config.connection_manager import ConnectionManager
from lodestar_extproc.config.errors import ConfigError
from lodestar_extproc.config.ext_proc_filter import ExtProcFilter, ext_proc_filters
from lodestar_extproc.config.members import is_marked, settings_block
from lodestar_extproc.config.node import Node, read_node
from lodestar_extproc.config.not_looked_at import NotLookedAt, unknown_fields
from lodestar_extproc.config.schema import RESOURCES, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

AGGREGATE = Kind("envoy.extensions.clusters.aggregate.v3.ClusterConfig")
"""Of a cluster that sends to the first of others that is healthy."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What an Envoy is made of.

    Attributes:
        root: the bootstrap.
        files: those that were read beside it.
    """

    root: Node
    listeners: tuple[Node, ...]
    managers: tuple[ConnectionManager, ...]
    clusters: tuple[Node, ...]
    files: tuple[Path, ...] = ()
    not_looked_at: tuple[NotLookedAt, ...] = ()

    def cluster(self, name: str) -> Node | None:
        return next((c for c in self.clusters if c.get("name").text == name), None)

    @property
    def pools(self) -> tuple[Node, ...]:
        """The clusters with a block of settings, less those that are marked as Lodestar itself."""
        return tuple(c for c in self.clusters if settings_block(c) and not is_marked(c))

    def may_be_pool(self, name: str, seen: frozenset[str] = frozenset()) -> bool:
        """Whether requests for the cluster *name* may go to a pool, or to who knows where.

        Args:
            seen: the aggregates it stands in.
        """
        found = self.cluster(name)
        if found is None or name in {pool.get("name").text for pool in self.pools}:
            return True
        inside = found.get("cluster_type", "typed_config")
        parts = {n.text for n in inside.get("clusters").items()} if inside.kind == AGGREGATE else ()
        seen |= {name}
        return any(self.may_be_pool(part, seen) for part in parts if part not in seen)


def read_resources(root: Node, path: Path) -> Resources:
    """Everything that the bootstrap *root*, read from *path*, says or leads to."""
    reading = _ResourceReading(path)
    static, dynamic = root.get("static_resources"), root.get("dynamic_resources")
    listeners = (
        *static.get("listeners").items(),
        *reading.resources(dynamic, "lds_config", "Listener"),
    )
    clusters = (
        *static.get("clusters").items(),
        *reading.resources(dynamic, "cds_config", "Cluster"),
    )
    managers = tuple(m for listener in listeners for m in reading.managers(listener))
    return Resources(
        root=root,
        listeners=listeners,
        managers=managers,
        clusters=clusters,
        files=tuple(reading.files),
        not_looked_at=(*reading.not_looked_at, *_unnamed_clusters(managers), *unknown_fields(root)),
    )


def _unnamed_clusters(managers: Iterable[ConnectionManager]) -> Iterator[NotLookedAt]:
    for manager in managers:
        for route in manager.routes:
            if not route.cluster:
                what = "where a route leads: a header or a plugin names the cluster"
                yield NotLookedAt(what, route.node.get("route"))


class _ResourceReading:
    """One bootstrap while it is read: which files it led to, and what could not be followed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: dict[Path, Node | None] = {}
        self.not_looked_at: list[NotLookedAt] = []

    @property
    def files(self) -> list[Path]:
        return list(self._read)

    def resources(self, place: Node, field: str, type_name: str) -> Iterator[Node]:
        """The resources of the configuration source in *field* of *place*."""
        if source := place.get(field):
            yield from self._from(source, type_name)
        if locator := place.get(field.replace("config", "resources_locator")):
            self._passed_over(f"the {_plural(type_name)} of xDS", locator)

    def managers(self, listener: Node) -> Iterator[ConnectionManager]:
        chains = [*listener.get("filter_chains").items(), listener.get("default_filter_chain")]
        entries = (entry for chain in chains for entry in chain.get("filters").items())
        configs = [c for entry in entries for c in self._configs(entry)]
        for config in (*configs, listener.get("api_listener", "api_listener")):
            if config.type_name == "HttpConnectionManager":
                filters = tuple(self._ext_proc(config))
                tables = tuple(self._route_tables(config))
                yield ConnectionManager(listener, config, filters, tables)

    def _ext_proc(self, manager: Node) -> Iterator[ExtProcFilter]:
        for entry in manager.get("http_filters").items():
            for config in self._configs(entry):
                yield from ext_proc_filters(entry, config)

    def _configs(self, entry: Node) -> Iterator[Node]:
        """The configurations of a filter: its own, or what its `config_discovery` finds."""
        discovery = entry.get("config_discovery")
        if not discovery:
            yield entry.get("typed_config")
            return
        if default := discovery.get("default_config"):
            yield default
        name = entry.get("name").text
        for extension in self._from(discovery.get("config_source"), "TypedExtensionConfig"):
            if extension.get("name").text == name:
                yield extension.get("typed_config")

    def _route_tables(self, manager: Node) -> Iterator[Node]:
        for table in self._tables(manager):
            yield table
            if vhds := table.get("vhds"):
                self._passed_over("virtual hosts of xDS", vhds)

    def _tables(self, manager: Node) -> Iterator[Node]:
        if table := manager.get("route_config"):
            yield table
        if rds := manager.get("rds"):
            yield from self._named_tables(rds.get("config_source"), rds.get("route_config_name"))
        scopes = manager.get("scoped_routes")
        listed = scopes.get("scoped_route_configurations_list", "scoped_route_configurations")
        scoped = list(listed.items())
        if source := scopes.get("scoped_rds", "scoped_rds_config_source"):
            scoped += self._from(source, "ScopedRouteConfiguration")
        for scope in scoped:
            if table := scope.get("route_configuration"):
                yield table
            if name := scope.get("route_configuration_name"):
                yield from self._named_tables(scopes.get("rds_config_source"), name)

    def _named_tables(self, source: Node, name: Node) -> Iterator[Node]:
        tables = self._from(source, "RouteConfiguration")
        yield from (table for table in tables if table.get("name").text == name.text)

    def _from(self, source: Node, type_name: str) -> Iterator[Node]:
        file = source_file(source, self._path)
        if file is None:
            self._passed_over(f"the {_plural(type_name)} of xDS", source)
            return
        root = self._opened(file, source)
        if root is not None:
            yield from resources_in(root, type_name)

    def _opened(self, file: Path, source: Node) -> Node | None:
        if file not in self._read:
            self._read[file] = None
            try:
                root = self._read[file] = read_node(file, RESOURCES)
                self.not_looked_at += unknown_fields(root)
            except ConfigError as error:
                self._passed_over(str(error), source)
        return self._read[file]

    def _passed_over(self, what: str, where: Node) -> None:
        self.not_looked_at.append(NotLookedAt(what, where))


def _plural(type_name: str) -> str:
    """`RouteConfiguration` as `route configurations`."""
    words = "".join(f" {c.lower()}" if c.isupper() else c for c in type_name)
    return f"{words.strip()}s"
