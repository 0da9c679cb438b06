"""AccessLogService: Envoy's access log, read as bytes, entry by entry; a bad one costs itself only.

What an entry means is told by `access_log.py`. Envoy never waits for this service, and sends many
requests' ends in one message on one stream: nothing in one of them may cost another its end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from lodestar_extproc.completion import Completion, Outcome
from lodestar_extproc.extproc import access_log
from lodestar_extproc.extproc.error_boundary import ErrorBoundary, FailureListener
from lodestar_extproc.generated.lodestar.v1.envoy_pb2 import (
    HTTPAccessLogEntry,
    StreamAccessLogsMessage,
    StreamAccessLogsResponse,
)
from lodestar_extproc.transport.calls import Call

_END: bytes = StreamAccessLogsResponse().SerializeToString()


class LogListener(FailureListener, Protocol):
    """Who is told of log entries: metrics."""

    def log_entry(self, outcome: Outcome | None) -> None:
        """*outcome* is None for an entry that belongs to no request known here."""

    def log_unreadable(self) -> None:
        """An entry, or a message of entries, was none."""


class AccessLogService:
    """Reads the streams on which Envoys send their access logs.

    Args:
        complete: is told how each request ended.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        complete: Callable[[Completion], object],
        listener: LogListener,
        boundary: ErrorBoundary,
        clock: Callable[[], float],
    ) -> None:
        self._complete = complete
        self._listener = listener
        self._boundary = boundary
        self._clock = clock
        self._open: set[LogCall] = set()

    def open(self, call: Call) -> LogCall:
        """Begin to take in an Envoy's log."""
        opened = LogCall(call, self._take_in, self._open.discard)
        self._open.add(opened)
        return opened

    def end(self) -> None:
        """End all streams: Envoy never does, and a server that stops would wait for them."""
        for call in tuple(self._open):
            call.half_closed()

    def _take_in(self, message: bytes) -> None:
        with self._boundary:
            self.read(message)

    def read(self, data: bytes) -> None:
        """Take up every entry of the message *data* that is one."""
        at_s = self._clock()
        message = StreamAccessLogsMessage()
        if not self._parsed(message, data):
            return
        for each in message.http_logs.log_entry:
            entry = HTTPAccessLogEntry()
            if self._parsed(entry, each):
                with self._boundary:
                    self._take(entry, at_s)

    def _parsed(self, message: Any, data: bytes) -> bool:
        try:
            message.ParseFromString(data)
        except DecodeError:
            self._listener.log_unreadable()
            return False
        return True

    def _take(self, entry: HTTPAccessLogEntry, at_s: float) -> None:
        completion = access_log.completion(entry, at_s)
        self._listener.log_entry(completion.outcome if completion else None)
        if completion is not None:
            self._complete(completion)


class LogCall:
    """One stream of an Envoy's log. It takes bytes: one bad message costs itself alone."""

    def __init__(
        self, call: Call, read: Callable[[bytes], None], closed: Callable[[LogCall], None]
    ) -> None:
        self._call = call
        self._closed = closed
        self.received = read

    def half_closed(self) -> None:
        self._call.send(_END)
        self._call.end()

    def closed(self, _n_sent: int) -> None:
        self._closed(self)
