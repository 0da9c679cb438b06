"""LiveSettings: where the current settings of one pool are read; a change is one assignment."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lodestar_extproc.config.settings import PoolSettings


class LiveSettings:
    """The settings of one pool, as they are now.

    Every part of a pool holds the same one and reads `current` when it needs a value, so that a
    part neither copies a setting nor has to be told of a change. `assembly.apply_settings` writes.

    Attributes:
        current: frozen; replaced as a whole, never changed inside.
    """

    __slots__ = ("current",)

    def __init__(self, current: PoolSettings) -> None:
        self.current = current
