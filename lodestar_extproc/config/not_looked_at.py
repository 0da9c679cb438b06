"""NotLookedAt: a part of a configuration that cannot be read from here, said instead of skipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lodestar_extproc.config.node import Node


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
