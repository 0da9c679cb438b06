"""Envoy's own validation of a configuration, where there is an Envoy to ask."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT_S = 60.0
"""Envoy validates in about a second; a busy machine takes many times that."""


@dataclass(frozen=True, slots=True)
class Validation:
    """What Envoy said; *problem* is empty where it accepts the file."""

    version: str
    problem: str = ""


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
    problem = "" if done.returncode == 0 else _reason(done.stderr or done.stdout)
    return Validation(number or "unknown", problem)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  (no shell; the user's own Envoy and file)
        command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


def _reason(output: str) -> str:
    """Envoy's error without its log prefix, on one line."""
    text = " ".join(output.split())
    return text.partition("error initializing configuration")[2].partition(": ")[2] or text
