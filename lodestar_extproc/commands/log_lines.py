"""LogLines: an entry of the log is one line, whatever text of others stands in it."""

from __future__ import annotations

import logging

from lodestar_extproc.printable import printable

LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
WORKER_FORMAT = "%(asctime)s %(levelname)-7s worker {} %(name)s: %(message)s"
INDENT = "    "
"""Before each line of a traceback, so that none looks like an entry."""


class LogLines(logging.Formatter):
    """As `LOG_FORMAT`; the lines of a traceback follow it, indented.

    Args:
        worker: which of several writes; None for none of several.
    """

    def __init__(self, worker: int | None = None) -> None:
        super().__init__(LOG_FORMAT if worker is None else WORKER_FORMAT.format(worker))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's name)
        """See logging."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802  (logging's name)
        """See logging."""
        lines = super().formatException(ei).splitlines()  # type: ignore[arg-type]
        return "\n".join(INDENT + printable(line) for line in lines)
