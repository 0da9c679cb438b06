"""Regular files, opened without waiting: nothing else is opened, and what it is instead is said."""

from __future__ import annotations

import os
import stat
from pathlib import Path


class NotAFile(OSError):  # noqa: N818  (the condition's name)
    """There is something at the path that is no regular file."""


def open_regular(path: Path, flags: int, mode: int = 0o600) -> int:
    """A descriptor of the regular file at *path*; the rest as of `os.open`.

    It asks what is there before it opens, for the opening alone may wait (a FIFO) or do something
    (a device).

    Raises:
        NotAFile: it is something else.
        OSError: it cannot be opened.
    """
    try:
        _require_regular(path, path.stat().st_mode)
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    # It may have become something else since: O_NONBLOCK then keeps the opening from waiting.
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, mode)
    try:
        _require_regular(path, os.fstat(descriptor).st_mode)
    except NotAFile:
        os.close(descriptor)
        raise
    return descriptor


def read_regular(path: Path) -> bytes:
    """What the regular file at *path* holds.

    Raises:
        NotAFile: it is something else, of which reading may wait for ever.
        OSError: it cannot be read.
    """
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
        return file.read()


def _require_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise NotAFile(f"{path} is {_kind(mode)}, not a file: left as it is")


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")
