"""KeptOutcomes: ended trials on disk, so that a long benchmark goes on where it was stopped.

What was kept by other code is not found: its figures would not be those of this code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

import lodestar_extproc
from lodestar_extproc.evaluation.figures import Figures
from lodestar_extproc.evaluation.trial import Trial, TrialResult


@dataclass(frozen=True, slots=True)
class KeptOutcomes:
    """One file a trial in *folder*."""

    folder: Path
    code: str

    def find(self, trial: Trial) -> list[TrialResult] | None:
        """What came of *trial* before; None if it has not run, or its file is no good."""
        try:
            content = orjson.loads(self._path(trial).read_bytes())
            return [_outcome(trial, entry) for entry in content]
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def keep(self, trial: Trial, outcomes: Sequence[TrialResult]) -> None:
        """Remember what came of *trial*."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = [{"contender": o.contender, "figures": asdict(o.figures)} for o in outcomes]
        path = self._path(trial)
        unfinished = path.with_suffix(".part")
        unfinished.write_bytes(orjson.dumps(content))
        unfinished.replace(path)

    def _path(self, trial: Trial) -> Path:
        digest = hashlib.sha256(f"{self.code} {trial!r}".encode()).hexdigest()[:24]
        return self.folder / f"{digest}.json"


def kept_outcomes(folder: Path) -> KeptOutcomes:
    """Those in *folder* that the present code has brought about."""
    package = Path(lodestar_extproc.__file__).parent
    digest = hashlib.sha256()
    for path in sorted([*package.rglob("*.py"), *package.rglob("*.json")]):
        digest.update(path.read_bytes())
    return KeptOutcomes(folder, digest.hexdigest())


def _outcome(trial: Trial, entry: dict[str, Any]) -> TrialResult:
    figures: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in entry["figures"].items()
    }
    return TrialResult(trial.cell, trial.seed, entry["contender"], Figures(**figures))
