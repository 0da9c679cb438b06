"""Envoy's own validation of a configuration, where there is an Envoy to ask."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_S = 60.0
"""Envoy validates in about a second; a busy machine takes many times that."""


UNREADABLE = re.compile(
    r"(?:Invalid path:|from path:|unable to (?:read|open) file:?|existing path in the system:)"
    r" *'?([^':]+)"
)
"""How Envoy says, in several places, that it cannot read a file that its configuration names."""


@dataclass(frozen=True, slots=True)
class Validation:
    """What Envoy said.

    Attributes:
        problem: empty where it accepts the file.
        missing_file: what it could not read because it is not on this machine; where Envoy runs
            it may be. What Envoy thinks of the rest is then unknown.
    """

    version: str
    problem: str = ""
    missing_file: str = ""


def find_envoy() -> str | None:
    """The Envoy on the path, else the one installed beside this Python."""
    return shutil.which("envoy") or shutil.which("envoy", path=sysconfig.get_path("scripts"))


def validate(envoy: str, path: Path) -> Validation:
    """Ask *envoy* whether it would start with the file at *path*; takes about 0.2 s."""
    version = _run(envoy, "--version")
    done = _run(envoy, "--mode", "validate", "--log-level", "error", "--config-path", str(path))
    number = next(
        (part for part in version.stdout.split("/") if part[:1].isdigit() and "." in part), ""
    )
    problem = "" if done.returncode == 0 else _reason(done)
    named = UNREADABLE.search(problem)
    missing = named[1].strip() if named and not Path(named[1].strip()).exists() else ""
    return Validation(number or "unknown", problem, missing)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    """What it printed; Envoy may cut a message off in the middle of a letter."""
    try:
        return subprocess.run(  # noqa: S603  (no shell; the user's own Envoy and file)
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """Envoy's error without its log prefix, on one line."""
    text = " ".join((done.stderr or done.stdout).split())
    said = text.partition("error initializing configuration")[2].partition(": ")[2] or text
    return said or f"it ended with status {done.returncode} and no word"
