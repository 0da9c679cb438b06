"""resolve(): what listeners and clusters refer to, put where it would stand if it were static.

A mesh has thousands of listeners, routes and clusters that are nothing to us: a table of routes is
put into a connection manager only where an ext_proc filter runs, or where it leads to a pool.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lodestar_extproc.check.finding import Unseen
from lodestar_extproc.check.running.discovered import clusters_of
from lodestar_extproc.check.running.mesh_pools import mark_pools
from lodestar_extproc.check.running.origin import Origin, source_of
from lodestar_extproc.check.running.struct_numbers import read_numbers
from lodestar_extproc.config.callee import callee
from lodestar_extproc.config.ext_proc_filter import PROCESSOR
from lodestar_extproc.config.node import Node
from lodestar_extproc.config.resources import read_resources

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lodestar_extproc.check.running.discovered import Discovered
    from lodestar_extproc.config.node import Key
    from lodestar_extproc.config.resources import Resources

WITHOUT_EDS = "the dump has none of them, ask for /config_dump?include_eds"


def resolve(
    root: Node, discovered: Discovered, origins: dict[tuple[Key, ...], Origin]
) -> list[Unseen]:
    """Fill *root*, a bootstrap without what is discovered, and *origins*; what is missing."""
    resolution = _Resolution(root, discovered, origins)
    managers = [manager.config for manager in resolution.resources().managers]
    asking = [manager for manager in managers if resolution.asks(manager)]
    for manager in asking:
        resolution.put_routes(manager)
    resources = resolution.resources()
    mark_pools(resources)
    pools = {pool.get("name").text for pool in resources.pools}
    leading = {name for name, table in discovered.tables.items() if pools & clusters_of(table)}
    for manager in managers:
        if manager not in asking:
            resolution.put_routes(manager, only=leading)
    return list(resolution.put_endpoints(resources))


class _Resolution:
    """One dump while it is resolved."""

    def __init__(
        self, root: Node, discovered: Discovered, origins: dict[tuple[Key, ...], Origin]
    ) -> None:
        self._root = root
        self._discovered = discovered
        self._origins = origins

    def resources(self) -> Resources:
        """As they are now."""
        return read_resources(self._root, Path(self._root.file))

    def asks(self, manager: Node) -> bool:
        """Whether an ext_proc filter stands in *manager*, whose filters are put in first."""
        filters = manager.get("http_filters")
        for entry in filters.items():
            name = entry.get("name").text
            if entry.get("config_discovery") and name in self._discovered.filters:
                self._origins[*entry.path, "typed_config"] = Origin("filter", name, "ECDS")
                _replace(entry, "config_discovery", "typed_config", self._discovered.filters[name])
        return any(True for _ in filters.messages(PROCESSOR))

    def put_routes(self, manager: Node, only: set[str] | None = None) -> None:
        """Put its table into *manager*; of one that is not in *only*, an empty one."""
        name = manager.get("rds", "route_config_name").text
        table = self._discovered.tables.get(name)
        if table is None:
            return
        if only is not None and name not in only:
            _replace(manager, "rds", "route_config", Node({}, manager.file, 0))
            return
        told = source_of(manager.get("rds", "config_source"), "RDS")
        self._origins[*manager.path, "route_config"] = Origin("route table", name, told)
        _replace(manager, "rds", "route_config", table)

    def put_endpoints(self, resources: Resources) -> Iterator[Unseen]:
        """Put endpoints into clusters; those of ours that the dump has none for."""
        ours = {callee(f.everywhere) for manager in resources.managers for f in manager.ext_proc}
        ours |= {pool.get("name").text for pool in resources.pools}
        for cluster in resources.clusters:
            if source := cluster.get("eds_cluster_config"):
                name = cluster.get("name").text
                found = self._discovered.assignments.get(source.get("service_name").text or name)
                if found is not None:
                    self._put_assignment(cluster, found)
                elif name in ours:
                    what = f"the endpoints of cluster {name}: {WITHOUT_EDS}"
                    yield Unseen(what, self._root.file)
            read_numbers(cluster)

    def _put_assignment(self, cluster: Node, assignment: Node) -> None:
        told = source_of(cluster.get("eds_cluster_config", "eds_config"), "EDS")
        origin = Origin("endpoints of cluster", cluster.get("name").text, told)
        self._origins[*cluster.path, "load_assignment"] = origin
        _replace(cluster, "eds_cluster_config", "load_assignment", assignment)
        _replace(cluster, "type", "type", Node("STATIC", cluster.file, 0))


def _replace(place: Node, old: str, new: str, value: Node) -> None:
    """Put *value* under *new* in the mapping at *place*, instead of what stands under *old*."""
    assert isinstance(place.value, dict)
    place.value.pop(place.get(old).path[-1], None)
    place.value[new] = value.value
