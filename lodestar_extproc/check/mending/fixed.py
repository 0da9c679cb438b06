"""fixed(): a file's text with every cure that the doctor knows, one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lodestar_extproc.check.mending.mended import CannotMendError, mended

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lodestar_extproc.check.finding import Finding

MOST_CURES = 400
"""A file has fewer places: more means that two cures undo each other."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """What became of a file.

    Attributes:
        cured: what was found and is no more.
        left: why what is still found could not be cured, by rule and place.
    """

    text: str
    cured: tuple[Finding, ...]
    left: dict[tuple[str, str], str]


def fixed(text: str, file: str, examine: Callable[[str], Iterable[Finding]]) -> Fixed:
    """*text*, of *file*, with the cures of what *examine* finds in it, until it finds no other."""
    cured: list[Finding] = []
    left: dict[tuple[str, str], str] = {}
    while len(cured) < MOST_CURES:
        findings = [f for f in examine(text) if f.cure and (f.rule, f.key) not in left]
        if not findings:
            break
        # One at a time: a cure may bring its own places, which others are about.
        finding = findings[0]
        if elsewhere := {patch.file for patch in finding.cure} - {file}:
            left[finding.rule, finding.key] = (
                f"write it into {', '.join(sorted(elsewhere))} by hand"
            )
            continue
        try:
            text = mended(text, finding.cure)
        except CannotMendError as error:
            left[finding.rule, finding.key] = str(error)
            continue
        if any((f.rule, f.key) == (finding.rule, finding.key) for f in cured):
            left[finding.rule, finding.key] = "its cure did not cure it"
        cured.append(finding)
    return Fixed(text, tuple(cured), left)
