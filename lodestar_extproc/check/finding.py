"""Fault, Finding and Report: what the doctor says; Patch: what cures it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lodestar_extproc.config.node import Key, Node


@dataclass(frozen=True, slots=True)
class Patch:
    """One operation of a JSON Patch (RFC 6902); the parent of its place exists.

    Attributes:
        value: what to put there, replacing what was there; None to remove it.
    """

    path: tuple[Key, ...]
    value: object = None

    @property
    def operation(self) -> dict[str, object]:
        """As RFC 6902 writes it."""
        escaped = (str(key).replace("~", "~0").replace("/", "~1") for key in self.path)
        pointer = "".join(f"/{key}" for key in escaped)
        if self.value is None:
            return {"op": "remove", "path": pointer}
        return {"op": "add", "path": pointer, "value": self.value}


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
        line: counted from 1; of the nearest thing above where something is missing.
        key: dotted path of the place.
    """

    rule: str
    line: int
    key: str
    problem: str
    cure: tuple[Patch, ...] = ()

    def as_json(self) -> dict[str, object]:
        """For machines."""
        return {
            "rule": self.rule,
            "line": self.line,
            "key": self.key,
            "problem": self.problem,
            "cure": [patch.operation for patch in self.cure],
        }


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found in one file.

    Attributes:
        envoy_version: of the Envoy that validated the file; None where none was found.
        hints: what works and could be better; no traps.
    """

    path: Path
    findings: tuple[Finding, ...]
    envoy_version: str | None = None
    hints: tuple[Finding, ...] = ()

    def as_json(self) -> dict[str, object]:
        """For machines: `findings[].cure` is a JSON Patch."""
        return {
            "file": str(self.path),
            "envoy_version": self.envoy_version,
            "findings": [finding.as_json() for finding in self.findings],
            "hints": [hint.as_json() for hint in self.hints],
        }


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
            return Patch(place.path[: depth + 1], value)
        there = inside
    return Patch(place.path, value)


def drop(place: Node) -> Patch:
    """Remove what stands at *place*."""
    return Patch(place.path)
