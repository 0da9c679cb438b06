"""read_settings(): a block of settings in a file, checked key by key, each fault with its line."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

from lodestar_extproc.config.old_spelling import names_before
from lodestar_extproc.config.setting import SettingError, settings_of, shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lodestar_extproc.config.node import Node

S = TypeVar("S")


def read_settings(block: Node, owner: type[S], *, apart: str = "") -> S:
    """The settings dataclass *owner* with what *block* says; its defaults for the rest.

    What a setting was called before is read as its name; `old_spellings` finds these.

    Args:
        apart: a key of the block that is read elsewhere.

    Raises:
        ConfigError: an unknown key, one that stands there by both its names, a wrong type, an
            impossible value.
    """
    if not block:
        return owner()
    if not isinstance(block.value, Mapping):
        raise block.error(f"{shown(block.value)} is not a mapping of settings")
    known, before = settings_of(owner), names_before(owner)
    values: dict[str, object] = {}
    places = {}
    for written, node in block.entries():
        name = before.get(written, written)
        if apart and name == apart:
            continue
        if name not in known:
            raise node.error(unknown(name, known))
        if name in values:
            raise node.error(f"{known[name].was} is now called {name}: only one may stand here")
        try:
            values[name] = known[name].parse(node.plain)
        except SettingError as error:
            raise node.error(error.problem) from error
        places[name] = node
    try:
        return owner(**values)
    except SettingError as error:
        raise places.get(error.name, block.get(error.name)).error(error.problem) from error


def unknown(name: str, known: Iterable[str]) -> str:
    """What is wrong with *name*: the nearest known one, and all of them."""
    known = sorted(known)
    nearest = difflib.get_close_matches(name, known, n=1)
    meant = f"did you mean {nearest[0]}? " if nearest else ""
    return f"unknown; {meant}Known: {', '.join(known)}"
