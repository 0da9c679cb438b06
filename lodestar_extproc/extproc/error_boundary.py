"""ErrorBoundary: what goes wrong inside it is counted, logged and suppressed."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Protocol

from lodestar_extproc.extproc.transitions import ProtocolError

_log = logging.getLogger(__name__)


class FailureListener(Protocol):
    """Who counts what goes wrong."""

    def stream_failed(self, reason: str) -> None:
        """*reason* is `protocol` or `internal`."""


class ErrorBoundary:
    """Around a stream, a message or a log entry: errors there are counted, logged and suppressed.

    It is entered several times for each request; a generator would cost ten times as much.
    """

    def __init__(self, listener: FailureListener) -> None:
        self._listener = listener
        self._warned: set[str] = set()

    def __enter__(self) -> None:
        """There is nothing to prepare."""

    def __exit__(
        self, _type: object, error: BaseException | None, _traceback: TracebackType | None
    ) -> bool:
        if isinstance(error, ProtocolError):
            self._listener.stream_failed("protocol")
            self._warn_once(f"ext_proc stream ended early: {error}")
            return True
        # The only catch-all: no bug of ours may stop a request. A cancellation is no Exception.
        if isinstance(error, Exception):
            self._listener.stream_failed("internal")
            _log.error("ext_proc stream ended early", exc_info=error)
            return True
        return False

    def _warn_once(self, text: str) -> None:
        """Warn of each text once: a filter that is configured wrongly errs on every request."""
        level = logging.DEBUG if text in self._warned else logging.WARNING
        self._warned.add(text)
        _log.log(level, text)
