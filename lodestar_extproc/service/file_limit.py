"""How many files and connections the process may have open: as many as it is let."""

from __future__ import annotations

import logging
import resource

WANTED_FILES = 65_536
"""For some ten thousand endpoints; more would only cost those who close all files by number."""
FILES_PER_ENDPOINT = 3
"""A connection for its metrics, one for its health, and one that is being replaced."""
OTHER_FILES = 512
"""Streams from Envoy (one connection each worker), logs, watches, the interpreter's own."""
_log = logging.getLogger(__name__)


def raise_file_limit() -> None:
    """Raise the soft limit to the hard one, which needs nobody's leave."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FILES if hard == resource.RLIM_INFINITY else min(WANTED_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def tell_if_too_few_files(n_endpoints: int) -> None:
    """Say what to do where so many endpoints need more files than may be open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = FILES_PER_ENDPOINT * n_endpoints + OTHER_FILES
    if soft != resource.RLIM_INFINITY and needed > soft:
        _log.warning(
            "%d endpoints need some %d open files, and %d are allowed: raise the hard limit "
            "(ulimit -Hn, LimitNOFILE of a unit, --ulimit nofile of a container)",
            n_endpoints,
            needed,
            soft,
        )
