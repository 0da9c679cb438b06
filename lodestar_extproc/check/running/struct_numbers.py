"""Numbers in our metadata: Envoy takes `0.2` in YAML for text, and a dump shows it as such."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ruamel.yaml.scalarstring import PlainScalarString

from lodestar_extproc.config.members import NAMESPACE
from lodestar_extproc.config.scalars import NUMBER

if TYPE_CHECKING:
    from lodestar_extproc.config.node import Node


def read_numbers(cluster: Node) -> None:
    """Make text that is a number plain text, as in a file, in all of our blocks of *cluster*."""
    places = [cluster]
    for locality in cluster.get("load_assignment", "endpoints").items():
        places += locality.get("lb_endpoints").items()
    for place in places:
        blocks = place.get("metadata", "filter_metadata").value
        if isinstance(blocks, dict) and NAMESPACE in blocks:
            blocks[NAMESPACE] = _plain(blocks[NAMESPACE])


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, str) and NUMBER.fullmatch(value):
        return PlainScalarString(value)
    return value
