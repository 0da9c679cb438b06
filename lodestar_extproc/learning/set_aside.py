"""Names under which a file is set aside: none that holds something else is ever taken."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from pathlib import Path

MAX_ASIDE = 9
"""Files of one kind kept beside a checkpoint: a disk that damages every one fills no disk."""


def free_name(path: Path, kind: str) -> Path:
    """A name beside *path* that nothing has: `path.kind`, else `path.kind.2` and so on.

    Raises:
        OSError: all are taken.
    """
    first = path.with_name(f"{path.name}.{kind}")
    names = (first, *(first.with_name(f"{first.name}.{n}") for n in range(2, MAX_ASIDE + 1)))
    for name in names:
        if not name.exists() and not name.is_symlink():
            return name
    raise OSError(
        errno.EEXIST, f"{MAX_ASIDE} files are set aside beside it already; remove some", str(first)
    )


def aside_of(path: Path, kind: str, is_older: Callable[[Path], bool]) -> Path:
    """`path.kind`, if nothing has that name or what *is_older* of the same; else a free one.

    Args:
        kind: as some file says; letters that make no plain name are left out.

    Raises:
        OSError: all are taken.
    """
    plain = re.sub(r"[^A-Za-z0-9_-]", "", kind)[:32] or "other"
    name = path.with_name(f"{path.name}.{plain}")
    return name if is_older(name) else free_name(path, plain)
