"""AccessLogService: Envoy's access log, read as bytes, entry by entry; a bad one costs itself only.

What an entry means is told by `access_log.py`. Envoy never waits for this service, and sends many
requests' ends in one message on one stream: nothing in one of them may cost another its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from lodestar_extproc.completion import Completion, Outcome
from lodestar_extproc.extproc import access_log
from lodestar_extproc.extproc.error_boundary import ErrorBoundary, FailureListener
from lodestar_extproc.generated.lodestar.v1.envoy_pb2 import (
    HTTPAccessLogEntry,
    StreamAccessLogsMessage,
    StreamAccessLogsResponse,
)


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
        self._streams: set[asyncio.Task[Any] | None] = set()

    def handler(self) -> grpc.RpcMethodHandler:
        """The gRPC handler. It takes bytes: gRPC's own parsing would end the stream in error."""
        return grpc.stream_unary_rpc_method_handler(
            self._serve, response_serializer=StreamAccessLogsResponse.SerializeToString
        )

    def end(self) -> None:
        """End all streams: Envoy never does, and a server that stops would wait for them."""
        for stream in filter(None, self._streams):
            stream.cancel()

    async def _serve(
        self, messages: AsyncIterator[bytes], _context: object
    ) -> StreamAccessLogsResponse:
        stream = asyncio.current_task()
        self._streams.add(stream)
        try:
            async for message in messages:
                with self._boundary:
                    self.read(message)
        except asyncio.CancelledError:
            # `end` cancelled it: only a reply ends the stream before the grace period does.
            pass
        finally:
            self._streams.discard(stream)
        return StreamAccessLogsResponse()

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
