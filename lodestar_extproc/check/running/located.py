"""in_resource(): a finding told by the resource it is in, where there are no lines."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lodestar_extproc.check.running.origin import origin_of
from lodestar_extproc.check.words import words

if TYPE_CHECKING:
    from lodestar_extproc.check.finding import Finding
    from lodestar_extproc.check.running.origin import Origins
    from lodestar_extproc.config.node import Key


def in_resource(origins: Origins, finding: Finding) -> Finding:
    """The same, told by the resource it is in instead of a line."""
    if finding.origin is not None:
        return finding
    path = _known(origins, finding.path)
    origin, depth = origin_of(origins, path)
    return replace(finding, line=0, path=path[depth:], origin=origin)


def _known(origins: Origins, path: tuple[Key, ...]) -> tuple[Key, ...]:
    """*path*, with what stands as one word in it taken apart as far as a resource is known."""
    if len(path) != 1:
        return path
    written = str(path[0])
    for known in sorted(origins, key=len, reverse=True):
        if written.startswith(prefix := words(known)):
            rest = written.removeprefix(prefix).removeprefix(".")
            return (*known, rest) if rest else known
    return path
