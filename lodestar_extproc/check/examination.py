"""examine(): what the rules find in a subject; hints(), and what they could not look at."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from lodestar_extproc.check.finding import Finding, Patch, Unseen
from lodestar_extproc.check.rules import HINTS, RULES
from lodestar_extproc.check.running.origin import origin_of
from lodestar_extproc.check.unseen_parts import unseen_parts
from lodestar_extproc.config import ConfigError, read_eds_members
from lodestar_extproc.config.envoy import config_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lodestar_extproc.check.finding import Fault
    from lodestar_extproc.check.rules import Rule
    from lodestar_extproc.check.running.origin import Origins
    from lodestar_extproc.check.subject import Subject
    from lodestar_extproc.config.old_spelling import OldSpelling

NO_ORIGINS: Origins = MappingProxyType({})


def examine(subject: Subject, path: Path) -> Iterator[Finding]:
    """Every trap in *subject*, read from *path*; each place once for each rule."""
    yield from _settings(subject, path)
    yield from _found(subject, RULES)


def hints(subject: Subject, path: Path) -> Iterator[Finding]:
    """What works and could be better: names of before, and what Envoy does for want of a word."""
    yield from _old_names(subject, path)
    yield from _found(subject, HINTS)


def unseen(subject: Subject, path: Path, origins: Origins = NO_ORIGINS) -> Iterator[Unseen]:
    """What was not looked at, and in which resource, if it is a running Envoy's."""
    try:
        of_file = config_of(subject.resources, path).not_looked_at
    except ConfigError:
        of_file = subject.resources.not_looked_at
    for part in (*of_file, *unseen_parts(subject)):
        origin, _ = origin_of(origins, part.where.path)
        yield Unseen(part.what, str(origin) if origin else f"{part.where.file}:{part.where.line}")


def _found(subject: Subject, rules: tuple[Rule, ...]) -> Iterator[Finding]:
    for rule in rules:
        # A filter or a policy is looked at for each route that it holds on.
        faults: dict[tuple[str, tuple[str | int, ...]], Fault] = {}
        for fault in rule(subject):
            faults.setdefault((fault.place.file, fault.place.path), fault)
        for fault in faults.values():
            place = fault.place
            yield Finding(
                rule.__name__, place.file, place.line, place.path, fault.problem, fault.cure
            )


def _old_names(subject: Subject, path: Path) -> Iterator[Finding]:
    try:
        old_spellings = config_of(subject.resources, path).old_spellings
    except ConfigError:
        return
    for old in old_spellings:
        problem = f"{old.old} is now called {old.new}; the old name still works"
        place = old.place
        yield Finding("old_name", place.file, place.line, place.path, problem, _renamed(old))


def _renamed(old: OldSpelling) -> tuple[Patch, ...]:
    place, (*above, last) = old.place, old.place.path
    if last == old.old:
        new = Patch(place.file, (*above, old.new), place.value)
        return new, Patch(place.file, place.path)
    return (Patch(place.file, place.path, old.new),)


def _settings(subject: Subject, path: Path) -> Iterator[Finding]:
    try:
        config = config_of(subject.resources, path)
    except ConfigError as error:
        yield Finding("settings", error.file, error.line, (error.key,), error.problem)
        return
    for pool in config.pools:
        # Where Envoy runs elsewhere, its EDS file may not be here to look at.
        if pool.eds is not None and pool.eds.path.exists():
            try:
                read_eds_members(pool.eds)
            except ConfigError as error:
                where = (f"pool {pool.name}",)
                yield Finding("settings", str(path), pool.line, where, str(error))
