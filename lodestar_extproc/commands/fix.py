"""fix(): the cures of `check` written into the file, after showing what changes."""

from __future__ import annotations

import difflib
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.text import Text

from lodestar_extproc.check.doctor import examined
from lodestar_extproc.check.envoy_binary import validate
from lodestar_extproc.check.examination import examine
from lodestar_extproc.check.mending.fixed import Fixed, fixed
from lodestar_extproc.commands.say import complain, tell
from lodestar_extproc.config import NotEnvoyConfig
from lodestar_extproc.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

NOT_WRITTEN = 1  # exit status


def fix(path: Path, *, envoy: str | None, asks: bool, listen: Sequence[str] = ()) -> None:
    """Show what the cures change in the file at *path*; write it if that is wanted.

    Args:
        envoy: an Envoy binary that has to accept what is written, if it accepts what is there.
        asks: whether a person is asked first.
        listen: where Lodestar listens, if the file does not tell who it is.

    Raises:
        NotEnvoyConfig: it cannot be read, or is something else.
    """
    text = exact_text(path)
    mended = fixed(text, str(path), lambda now: examine(examined(now, path, listen), path))
    apply(Change(path, text, mended), envoy=envoy, asks=asks)


def exact_text(path: Path) -> str:
    """What the file at *path* holds, its line ends as they are: it is to be written again.

    Raises:
        NotEnvoyConfig: it cannot be read.
    """
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise NotEnvoyConfig(f"cannot be read: {error}", file=str(path)) from error


@dataclass(frozen=True, slots=True)
class Change:
    """A file, what it said and what it is to say."""

    path: Path
    before: str
    mended: Fixed


def apply(change: Change, *, envoy: str | None, asks: bool) -> None:
    """Show what changes, ask if wanted, and write it.

    Raises:
        typer.Exit: it is not wanted, Envoy would refuse it, or it cannot be written.
    """
    path, mended = change.path, change.mended
    console = Terminal(highlight=False)
    _show_left(mended, console)
    if mended.text == change.before:
        return
    show_change(change.before, mended.text, str(path), console)
    _refuse_what_envoy_refuses(change, envoy)
    if asks and not _agreed(path):
        console.print(Text(f"{path} is as it was", style="yellow"), soft_wrap=True)
        raise typer.Exit(NOT_WRITTEN)
    write(path, mended.text)
    rules = ", ".join(dict.fromkeys(finding.rule for finding in mended.cured))
    console.print(Text(f"{path}: written, cured {rules}", style="green"), soft_wrap=True)


def show_change(before: str, after: str, name: str, console: Console) -> None:
    """Print the difference as `diff -u` does."""
    styles = {"+": "green", "-": "red", "@": "cyan"}
    lines = (before.splitlines(), after.splitlines())
    for line in difflib.unified_diff(*lines, name, name, lineterm=""):
        style = "bold" if line[:3] in ("+++", "---") else styles.get(line[0], "")
        console.print(Text(line, style=style), soft_wrap=True)


def write(path: Path, text: str) -> None:
    """Put *text* in the file at *path*, whole or not at all, with the rights it has.

    Raises:
        typer.Exit: it cannot be written.
    """
    target = path.resolve()
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as new:
            new.write(text.encode())
        mode = target.stat().st_mode & 0o7777 if target.exists() else 0o666 & ~_umask()
        Path(new.name).chmod(mode)
        Path(new.name).replace(target)
    except OSError as error:
        complain(f"error: {path} cannot be written: {error}")
        raise typer.Exit(NOT_WRITTEN) from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _show_left(mended: Fixed, console: Console) -> None:
    for (rule, key), why in mended.left.items():
        console.print(Text(f"not cured  {rule} at {key}: {why}", style="yellow"), soft_wrap=True)


def _refuse_what_envoy_refuses(change: Change, envoy: str | None) -> None:
    if envoy is None:
        return
    problems = []
    for text in (change.before, change.mended.text):
        with tempfile.NamedTemporaryFile("w", suffix=change.path.suffix or ".yaml") as file:
            file.write(text)
            file.flush()
            problems.append(validate(envoy, Path(file.name)).problem)
    if problems[1] and not problems[0]:
        complain(f"error: Envoy refuses the cured file: {problems[1]}")
        raise typer.Exit(NOT_WRITTEN)


def _agreed(path: Path) -> bool:
    if not sys.stdin.isatty():
        tell("nobody is there to ask: --yes writes it", err=True, fg="yellow")
        return False
    return typer.confirm(f"Write {path}?", default=False)
