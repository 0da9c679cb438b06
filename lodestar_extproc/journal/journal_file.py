"""JournalFile: appends lines, whole or not at all, and begins a new file when one is full.

Only journals are appended to, moved or overwritten: whatever else has one of its names stays. It
knows neither what the lines say nor what to do when the disk is full.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import orjson

from lodestar_extproc.journal.entry import KNOWN_FORMATS, header_line
from lodestar_extproc.regular_file import NotAFile, open_regular

MAX_FILE_BYTES = 128 * 2**20  # an eighth of what may be kept in all
OLD_FILES = 7
"""Kept as `.1`, the latest, to `.7`: a gibibyte in all."""
MAX_HEADER_BYTES = 4096
"""A header has some 600 bytes. More is not read to find out whether a file is a journal."""
_BEGINNING = b'{"journal":'
_SALT_BYTES = 16  # 128 bits: not to be guessed


class JournalFile:
    """One path, written by one process, readable by its owner only.

    Args:
        max_bytes: a file is full when it has so many; the lines that fill it are still in it.
        clock: wall time, seconds since 1970.

    Attributes:
        salt: of this file; it is never written anywhere.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int = MAX_FILE_BYTES,
        old_files: int = OLD_FILES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self.salt = b""
        self._max_bytes = max_bytes
        self._old_files = old_files
        self._clock = clock
        self._descriptor: int | None = None
        self._size_bytes = 0

    def make_room(self) -> None:
        """Open the file, a new one if it is full, or if a later version wrote the one there is.

        Raises:
            OSError: it cannot be opened or moved, or is no journal.
        """
        if self._descriptor is not None and not self._is_there():
            self.close()
        if self._descriptor is not None and self._size_bytes < self._max_bytes:
            return
        if self._descriptor is None and self._goes_on():
            self._open()
            return
        self.close()
        self._shift()
        self._open()

    def append(self, lines: bytes) -> None:
        """Write *lines* at the end; after an error none of them is there.

        Raises:
            OSError: it cannot be written.
        """
        assert self._descriptor is not None, "make_room first"
        rest = memoryview(lines)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size_bytes)
            raise
        self._size_bytes += len(lines)

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _is_there(self) -> bool:
        """Whether the open file is still the one at the path; it may be removed or moved away."""
        assert self._descriptor is not None
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def _goes_on(self) -> bool:
        """Whether the file that is there, if any, takes more lines of ours."""
        written = _format_of(self.path)
        if written is None:
            return True
        return written in KNOWN_FORMATS and self.path.stat().st_size < self._max_bytes

    def _open(self) -> None:
        self._descriptor = open_regular(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        self._size_bytes = os.fstat(self._descriptor).st_size
        self.salt = secrets.token_bytes(_SALT_BYTES)
        try:
            self.append(self._line_end() + header_line(self._clock()))
        except OSError:
            # Without a header it would be no journal: the next attempt begins with one.
            self.close()
            raise

    def _line_end(self) -> bytes:
        """What the last process to write here may have left out."""
        assert self._descriptor is not None
        if self._size_bytes == 0:
            return b""
        last = os.pread(self._descriptor, 1, self._size_bytes - 1)
        return b"" if last == b"\n" else b"\n"

    def _shift(self) -> None:
        """Move every old file one further; the last is overwritten.

        Raises:
            OSError: one cannot be moved, or is no journal.
        """
        names = [self._old(number) for number in range(self._old_files + 1)]
        there = {name for name in names if _format_of(name) is not None or name.exists()}
        for older, newer in reversed(list(itertools.pairwise(names))):
            if older in there:
                older.replace(newer)

    def _old(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}") if number else self.path


def _format_of(path: Path) -> object:
    """The format of the journal at *path*; None where there is none, or no whole line in it.

    Raises:
        OSError: it cannot be read, or is something else than a journal.
    """
    try:
        with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
            line = file.readline(MAX_HEADER_BYTES)
    except FileNotFoundError:
        return None
    try:
        header = orjson.loads(line)
    except orjson.JSONDecodeError:
        header = None
    if isinstance(header, dict) and "journal" in header:
        return header["journal"]
    # A killed process may have left the very first line open.
    if line.startswith(_BEGINNING) or _BEGINNING.startswith(line.rstrip(b"\n")):
        return None
    raise NotAFile(f"{path} is no journal: left as it is; name another file")
