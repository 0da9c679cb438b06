"""OldSpelling: a place in a file that calls a setting or a header as it was called before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lodestar_extproc.config.setting import settings_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lodestar_extproc.config.node import Node


@dataclass(frozen=True, slots=True)
class OldSpelling:
    """It is read as if it said *new*.

    Attributes:
        place: where *old* is a key (of a setting), or the value (the name of a header).
    """

    place: Node
    old: str
    new: str

    def __str__(self) -> str:
        return f"line {self.place.line}: {self.old} is now called {self.new}"


def names_before(owner: type) -> Mapping[str, str]:
    """The present name of each setting of *owner* that had another, by the other."""
    return {s.was: name for name, s in settings_of(owner).items() if s.was}


def old_spellings(block: Node, owner: type) -> Iterator[OldSpelling]:
    """Those in a block of settings."""
    before = names_before(owner)
    for written, place in block.entries():
        if written in before:
            yield OldSpelling(place, written, before[written])


def in_words(found: Iterable[OldSpelling]) -> str:
    """Each with its line, for one warning a file."""
    return "; ".join(map(str, found))
