"""Where Envoy takes resources from while it runs: the file of a `ConfigSource`, what is in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lodestar_extproc.config.node import Node


def source_file(source: Node, beside: Path) -> Path | None:
    """The file that a `ConfigSource` names; None where it names something else.

    Envoy may run where the same folder has another name, in a container for instance: what is not
    there is looked for beside the bootstrap, at the path *beside*.
    """
    written = source.get("path_config_source", "path").text or source.get("path").text
    if not written:
        return None
    file, near = Path(written), beside.parent / Path(written).name
    return near if near.exists() and not file.exists() else file


def resources_in(root: Node, type_name: str) -> Iterator[Node]:
    """Those of one type in a file of resources, which may stand in a wrapper with a name."""
    for entry in root.get("resources").items():
        resource = entry.get("resource") if entry.type_name == "Resource" else entry
        if resource.type_name == type_name:
            yield resource
