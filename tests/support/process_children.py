"""Which processes a process has started, as the kernel says it.

`ps` may cut a command where a terminal would end, so nobody can be found in it by name.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def is_running(pid: int) -> bool:
    """There, and no zombie."""
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def children_of(pid: int, of_command: str = "") -> list[int]:
    """Those that run now, of any of its threads, whose command holds *of_command*."""
    found = []
    for each in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # A thread that ended meanwhile.
            found += [int(child) for child in each.read_text().split()]
    return [child for child in found if is_running(child) and of_command in _command(child)]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""
