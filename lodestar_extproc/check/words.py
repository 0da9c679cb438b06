"""words(): a path as people read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lodestar_extproc.config.node import Key


def words(path: tuple[Key, ...]) -> str:
    """A path with dots and brackets.

    >>> words(("static_resources", "clusters", 0, "name"))
    'static_resources.clusters[0].name'
    """
    parts = (f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return "".join(parts).removeprefix(".")
