"""Discovered: what of a config dump other resources refer to by name."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lodestar_extproc.config.node import Node
from lodestar_extproc.config.schema import camel_case

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Discovered:
    """Resources by name.

    Attributes:
        tables: of routes, by RDS.
        filters: the configurations of filters, by ECDS, in whatever wraps them.
        assignments: of endpoints to clusters, by EDS.
    """

    tables: Mapping[str, Node]
    filters: Mapping[str, Node]
    assignments: Mapping[str, Node]


def read_discovered(sections: Mapping[str, Node], file: str) -> Discovered:
    """What the *sections* of a dump hold, by the types of their messages."""

    def held(section: str, entries: str, field: str) -> list[Node]:
        listed = sections.get(section, Node(None, file, 0)).get(entries)
        return [found for entry in listed.items() if (found := entry.get(field))]

    tables = held("RoutesConfigDump", "dynamic_route_configs", "route_config")
    filters = held("EcdsConfigDump", "ecds_filters", "ecds_filter")
    # Static are those of static clusters, wherever their endpoints come from.
    assignments = [
        found
        for entries in ("static_endpoint_configs", "dynamic_endpoint_configs")
        for found in held("EndpointsConfigDump", entries, "endpoint_config")
    ]
    return Discovered(
        tables={table.get("name").text: table for table in tables},
        filters={each.get("name").text: _unopened(each, "typed_config") for each in filters},
        # Copies: the numbers in our blocks are read in them.
        assignments={
            each.get("cluster_name").text: replace(each, value=copy.deepcopy(each.value))
            for each in assignments
        },
    )


def clusters_of(table: Node) -> set[str]:
    """The clusters that the routes of *table* name."""
    found = set()
    for host in table.get("virtual_hosts").items():
        for route in host.get("routes").items():
            action = route.get("route")
            found.add(action.get("cluster").text)
            weighted = action.get("weighted_clusters", "clusters").items()
            found |= {entry.get("name").text for entry in weighted}
    return found


def _unopened(node: Node, name: str) -> Node:
    """The value under *name* in whatever wraps it."""
    if not isinstance(node.value, dict):
        return Node(None, node.file, 0)
    written = (node.value.get(spelled) for spelled in (name, camel_case(name)))
    return Node(next(filter(None, written), None), node.file, 0)
