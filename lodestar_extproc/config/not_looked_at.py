"""NotLookedAt: a part of a configuration that cannot be read from here, said instead of skipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lodestar_extproc.config.schema import UNTYPED, envoy_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lodestar_extproc.config.node import Node

ENDPOINTS_OF_XDS = "its endpoints of xDS"
"""Said of a pool; who names its endpoints otherwise has said them."""


@dataclass(frozen=True, slots=True)
class NotLookedAt:
    """What was not looked at, and the place that leads there.

    Attributes:
        what: in words, with the reason: `the listeners: they come by xDS`.
    """

    what: str
    where: Node

    def __str__(self) -> str:
        return f"{self.where.file}:{self.where.line}: {self.where.key}: not looked at: {self.what}"


def unknown_fields(node: Node) -> Iterator[NotLookedAt]:
    """The fields of the messages in *node* that Envoy did not have when its descriptors were read.

    Envoy refuses what it does not know: so they are mistyped, or of a later Envoy.
    """
    if node.kind.listed or node.kind.keyed:
        children = node.items() if node.kind.listed else (each for _, each in node.entries())
        for child in children:
            yield from unknown_fields(child)
    elif node.kind.is_message:
        for name, child in node.entries():
            if child.kind == UNTYPED and name != "@type" and not node.kind.spelled(name):
                what = f"{name} is no field of {node.type_name} in Envoy {envoy_schema().envoy}"
                yield NotLookedAt(what, child)
            yield from unknown_fields(child)
