"""Fault, Finding and Report: what the doctor says; Patch: what cures it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lodestar_extproc.check.words import words

if TYPE_CHECKING:
    from lodestar_extproc.check.running.origin import Origin, Origins
    from lodestar_extproc.config.node import Key, Node


@dataclass(frozen=True, slots=True)
class Patch:
    """One operation of a JSON Patch (RFC 6902); the parent of its place exists.

    Attributes:
        file: in which it belongs.
        value: what to put there; None to remove what is there.
        inserts: before the element that stands there, instead of replacing it.
    """

    file: str
    path: tuple[Key, ...]
    value: object = None
    inserts: bool = False

    def below(self, depth: int) -> Patch:
        """The same in the document that stands at the first *depth* keys."""
        return replace(self, path=self.path[depth:])

    @property
    def operation(self) -> dict[str, object]:
        """As RFC 6902 writes it."""
        escaped = (str(key).replace("~", "~0").replace("/", "~1") for key in self.path)
        pointer = "".join(f"/{key}" for key in escaped)
        if self.value is None:
            return {"op": "remove", "path": pointer}
        # There, "add" replaces the value of a key, and is before an element of a list.
        replaces = isinstance(self.path[-1], int) and not self.inserts
        return {"op": "replace" if replaces else "add", "path": pointer, "value": self.value}


@dataclass(frozen=True, slots=True)
class Fault:
    """A place in a file and what is wrong there.

    Attributes:
        cure: patches which together put it right; empty where only the reader can know.
    """

    place: Node
    problem: str
    cure: tuple[Patch, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault, with the name of the rule that found it.

    Attributes:
        line: counted from 1; of the nearest thing above where something is missing. 0 where it
            was found in no file.
        path: of the place; in a running Envoy, from its resource on.
        origin: the resource of a running Envoy.
    """

    rule: str
    file: str
    line: int
    path: tuple[Key, ...]
    problem: str
    cure: tuple[Patch, ...] = ()
    origin: Origin | None = None

    @property
    def key(self) -> str:
        """The path in words."""
        return words(self.path)


@dataclass(frozen=True, slots=True)
class Unseen:
    """What the doctor could not look at.

    Attributes:
        what: in words, with the reason.
        where: a line of a file, or a resource of a running Envoy.
    """

    what: str
    where: str


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found in one file, or in one running Envoy.

    Attributes:
        source: the file's path, or the address of the admin page.
        unseen: what was not looked at, so that nothing is known of it.
        envoy_version: of the Envoy that validated the file, or that runs; None if unknown.
        validated: whether an Envoy accepted or refused it.
        hints: what works and could be better; no traps.
        origins: the resources of a running Envoy, by their place in what was examined.
    """

    source: str
    findings: tuple[Finding, ...]
    unseen: tuple[Unseen, ...] = ()
    envoy_version: str | None = None
    validated: bool = False
    hints: tuple[Finding, ...] = ()
    origins: Origins = field(default_factory=dict)


def put(root: Node, place: Node, value: object) -> Patch:
    """Put *value* at *place*, with whatever mappings are missing above it."""
    there: object = root.value
    for depth, key in enumerate(place.path):
        inside = there.get(key) if isinstance(there, Mapping) and isinstance(key, str) else None
        if isinstance(there, list) and isinstance(key, int):
            inside = there[key]
        if inside is None:
            for missing in reversed(place.path[depth + 1 :]):
                value = {missing: value}
            return Patch(place.file, place.path[: depth + 1], value)
        there = inside
    return Patch(place.file, place.path, value)


def insert(root: Node, items: Node, index: int, value: object) -> Patch:
    """Put *value* before element *index* of the list *items*, which may be missing."""
    if isinstance(items.value, list):
        return Patch(items.file, (*items.path, index), value, inserts=True)
    return put(root, items, [value])


def append(root: Node, items: Node, value: object) -> Patch:
    """Put *value* at the end of the list *items*, which may be missing."""
    return insert(root, items, sum(1 for _ in items.items()), value)


def drop(place: Node) -> Patch:
    """Remove what stands at *place*."""
    return Patch(place.file, place.path)
