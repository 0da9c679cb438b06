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
    """One object a line: time, level, logger, message; an event's own fields beside them."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging."""
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        event = getattr(record, "event", None)
        if isinstance(event, dict):
            told |= {name: event[name] for name in ("event", "number", "pool", "endpoint")}
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return printable_json(json.dumps(told, ensure_ascii=False))


def configure_logging(level: int, form: str) -> None:
    """Write the log to standard error from now on.

    Args:
        level: of our own lines.
        form: one of `FORMATS`.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else LogLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("lodestar_extproc").setLevel(level)
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
