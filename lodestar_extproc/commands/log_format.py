"""How the log is written: lines for people, or one JSON object a line."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

from lodestar_extproc.commands.log_lines import LogLines
from lodestar_extproc.printable import printable_json

FORMATS = ("text", "json")


class JsonLines(logging.Formatter):
    """One object a line: time, level, logger, message; an event's own fields beside them.

    Args:
        worker: which of several writes; None for none of several.
    """

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._worker = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        """See logging."""
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._worker,
        }
        event = getattr(record, "event", None)
        if isinstance(event, dict):
            told |= {name: event[name] for name in ("event", "number", "pool", "endpoint")}
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return printable_json(json.dumps(told, ensure_ascii=False))


def configure_logging(level: int, form: str, worker: int | None = None) -> None:
    """Write the log to standard error from now on.

    Args:
        level: of our own lines.
        form: one of `FORMATS`.
        worker: which of several writes; None for none of several.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(worker) if form == "json" else LogLines(worker))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("lodestar_extproc").setLevel(level)
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
