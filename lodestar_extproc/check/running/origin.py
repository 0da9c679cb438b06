"""Origin: which resource of a running Envoy a place belongs to, and where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from lodestar_extproc.config.node import Key, Node


@dataclass(frozen=True, slots=True)
class Origin:
    """A resource: Envoy's own word for its kind, its name, and its source.

    Attributes:
        source: `static`, or by which discovery service and from where: `LDS by ADS`,
            `CDS from /etc/envoy/cds.yaml`.
    """

    kind: str
    name: str
    source: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name} ({self.source})"


Origins: TypeAlias = Mapping[tuple["Key", ...], Origin]
"""The origin of each resource, by its place in the tree."""


def origin_of(origins: Origins, path: tuple[Key, ...]) -> tuple[Origin | None, int]:
    """The innermost resource that holds *path*, and how many keys lead to that resource."""
    for depth in range(len(path), -1, -1):
        found = origins.get(path[:depth])
        if found is not None:
            return found, depth
    return None, 0


def source_of(config_source: Node, service: str) -> str:
    """Where a `ConfigSource` has *service*, `LDS` for instance, get its resources from."""
    path = config_source.get("path_config_source", "path").text or config_source.get("path").text
    if path:
        return f"{service} from {path}"
    if config_source.get("ads").value is not None:
        return f"{service} by ADS"
    return service
