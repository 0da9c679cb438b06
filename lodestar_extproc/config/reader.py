"""read_settings(): a block of settings in a file, checked key by key, each fault with its line."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

from lodestar_extproc.config.setting import SettingError, settings_of, shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lodestar_extproc.config.node import Node

S = TypeVar("S")


def read_settings(block: Node, owner: type[S], *, apart: str = "") -> S:
    """The settings dataclass *owner* with what *block* says; its defaults for the rest.

    Args:
        apart: a key of the block that is read elsewhere.

    Raises:
        ConfigError: an unknown key, a wrong type, an impossible value.
    """
    if not block:
        return owner()
    if not isinstance(block.value, Mapping):
        raise block.error(f"{shown(block.value)} is not a mapping of settings")
    known = settings_of(owner)
    values = {}
    for name, node in block.entries():
        if apart and name == apart:
            continue
        if name not in known:
            raise node.error(unknown(name, known))
        try:
            values[name] = known[name].parse(node.value)
        except SettingError as error:
            raise node.error(error.problem) from error
    try:
        return owner(**values)
    except SettingError as error:
        raise block.get(error.name).error(error.problem) from error


def unknown(name: str, known: Iterable[str]) -> str:
    """What is wrong with *name*: the nearest known one, and all of them."""
    known = sorted(known)
    nearest = difflib.get_close_matches(name, known, n=1)
    meant = f"did you mean {nearest[0]}? " if nearest else ""
    return f"unknown; {meant}Known: {', '.join(known)}"
