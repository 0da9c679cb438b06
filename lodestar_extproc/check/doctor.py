"""check(): every known trap in an Envoy configuration, each with what cures it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lodestar_extproc.check.envoy_binary import Validation, validate
from lodestar_extproc.check.finding import Finding, Patch, Report
from lodestar_extproc.check.rules import RULES
from lodestar_extproc.check.subject import subject_of
from lodestar_extproc.config import ConfigError, NotEnvoyConfig, read_eds_members
from lodestar_extproc.config.envoy import config_of, read_root
from lodestar_extproc.config.resources import read_resources

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lodestar_extproc.config.resources import Resources


def check(path: Path, *, envoy: str | None = None) -> Report:
    """Look for every trap in the Envoy configuration at *path*.

    Args:
        envoy: an Envoy binary to validate the file with; None leaves that out.

    Raises:
        NotEnvoyConfig: it is something else, or cannot be read.
    """
    try:
        root = read_root(path)
    except NotEnvoyConfig:
        raise
    except ConfigError as error:
        raise NotEnvoyConfig(error.problem, file=error.file, line=error.line) from error
    validation = validate(envoy, path) if envoy else None
    resources = read_resources(root, path)
    findings = sorted((*_refused(validation), *examine(resources, path)), key=lambda f: f.line)
    version = validation.version if validation else None
    return Report(path, tuple(findings), version, tuple(hints(resources, path)))


def examine(resources: Resources, path: Path) -> Iterator[Finding]:
    """What can be found in *resources*, read from *path*, without Envoy."""
    yield from _settings(resources, path)
    subject = subject_of(resources)
    for rule in RULES:
        for fault in rule(subject):
            place = fault.place
            yield Finding(rule.__name__, place.line, place.key, fault.problem, fault.cure)


def hints(resources: Resources, path: Path) -> Iterator[Finding]:
    """What works and could be better: names of before, each with the one of now."""
    try:
        old_spellings = config_of(resources, path).old_spellings
    except ConfigError:
        return
    for old in old_spellings:
        place, problem = old.place, f"{old.old} is now called {old.new}; the old name still works"
        *above, last = place.path
        is_key = last == old.old
        renamed = Patch((*above, old.new), place.value), Patch(place.path)
        cure = renamed if is_key else (Patch(place.path, old.new),)
        yield Finding("old_name", place.line, place.key, problem, cure)


def _refused(validation: Validation | None) -> Iterator[Finding]:
    if validation and validation.problem:
        yield Finding(
            "envoy", 1, "", f"Envoy {validation.version} refuses the file: {validation.problem}"
        )


def _settings(resources: Resources, path: Path) -> Iterator[Finding]:
    try:
        config = config_of(resources, path)
    except ConfigError as error:
        yield Finding("settings", error.line, error.key, error.problem)
        return
    for pool in config.pools:
        # Where Envoy runs elsewhere, its EDS file may not be here to look at.
        if pool.eds is not None and pool.eds.path.exists():
            try:
                read_eds_members(pool.eds)
            except ConfigError as error:
                yield Finding("settings", pool.line, f"pool {pool.name}", str(error))
