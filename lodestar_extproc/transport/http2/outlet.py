"""Outlet and StreamOutlet: what leaves a connection, as fast as the client's windows let it.

The outlet owns what the connection may send, an answer what its stream may.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from lodestar_extproc.transport.http2.frames import (
    END_HEADERS,
    END_STREAM,
    FIRST_WINDOW,
    HEADER,
    LEAST_FRAME_BYTES,
    MAX_WINDOW,
    ConnectionFault,
    ErrorCode,
    FrameType,
    StreamFault,
    frame,
)
from lodestar_extproc.transport.http2.messages import PREFIX


class Outlet:
    """Frames of one connection on their way out.

    Args:
        write: takes bytes, in order.
        soon: calls what it is given in a moment.

    Attributes:
        max_frame_bytes, first_window: as the client has set them.
        window: what all streams together may send.
        n_flushes: how often all there was has been written.
    """

    def __init__(
        self, write: Callable[[bytes], None], soon: Callable[[Callable[[], None]], object]
    ) -> None:
        self.max_frame_bytes = LEAST_FRAME_BYTES
        self.first_window = self.window = FIRST_WINDOW
        self.n_flushes = 0
        self._write = write
        self._soon = soon
        self._frames: list[bytes] = []
        self._is_due = False
        self._waiting: dict[StreamOutlet, None] = {}

    def add(self, frame: bytes) -> None:
        """It leaves with what else is sent in this moment."""
        self._frames.append(frame)
        if not self._is_due:
            self._is_due = True
            self._soon(self.flush)

    def flush(self) -> None:
        """Write what there is, at once."""
        self._is_due = False
        self.n_flushes += 1
        if self._frames:
            out = self._frames[0] if len(self._frames) == 1 else b"".join(self._frames)
            self._frames.clear()
            self._write(out)

    def hold(self) -> None:
        """Somebody will flush."""
        self._is_due = True

    def credit(self, n_bytes: int) -> None:
        """The client takes so many bytes more.

        Raises:
            ConnectionFault: more than there is a number for.
        """
        self.window += n_bytes
        if self.window > MAX_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window over 2^31-1")
        while self.window > 0 and self._waiting:
            answer = next(iter(self._waiting))
            del self._waiting[answer]
            answer.credit(0)

    def wait(self, answer: StreamOutlet) -> None:
        """For the connection's window."""
        self._waiting[answer] = None

    def forget(self, answer: StreamOutlet) -> None:
        """It waits no more."""
        self._waiting.pop(answer, None)


class OutletUser(Protocol):
    """Whose answer leaves."""

    def all_left(self) -> None:
        """Nothing more is to leave."""

    def go_on(self) -> None:
        """More has left, after waiting."""


class StreamOutlet:
    """What leaves on one stream.

    Args:
        beginning: its header block.

    Attributes:
        n_sent: messages that have left.
        n_unsent_bytes: what waits for a window.
    """

    __slots__ = (
        "_at",
        "_beginning",
        "_end",
        "_flushed_at",
        "_n_flushed",
        "_outlet",
        "_owner",
        "_stream_id",
        "_unsent",
        "_window",
        "n_sent",
        "n_unsent_bytes",
    )

    def __init__(self, outlet: Outlet, stream_id: int, beginning: bytes, owner: OutletUser) -> None:
        self._outlet = outlet
        self._stream_id = stream_id
        self._beginning = beginning
        self._owner = owner
        self._window = outlet.first_window
        self._unsent: deque[bytes] = deque()
        self._at = 0
        self._end = b""
        self.n_sent = self.n_unsent_bytes = 0
        self._n_flushed, self._flushed_at = 0, outlet.n_flushes

    @property
    def n_written(self) -> int:
        """Messages that were written, not only made ready to be with the next flush."""
        return self.n_sent if self._flushed_at != self._outlet.n_flushes else self._n_flushed

    def send(self, message: bytes) -> None:
        """One gRPC message."""
        self.put(PREFIX.pack(0, len(message)) + message)

    def put(self, data: bytes) -> None:
        """Bytes that count as one message."""
        if self._beginning:
            self._outlet.add(
                frame(FrameType.HEADERS, END_HEADERS, self._stream_id, self._beginning)
            )
            self._beginning = b""
        self._unsent.append(data)
        self.n_unsent_bytes += len(data)
        self._leave()

    def end(self, trailers: bytes) -> None:
        """Once all has left, with this header block; of an answer without a message it is all."""
        self._end = self._beginning + trailers
        self._beginning = b""
        self._leave()

    def cancel(self) -> None:
        """Nothing more leaves. Called once."""
        del self._owner  # each refers to the other
        self._unsent.clear()
        self.n_unsent_bytes = 0
        self._end = self._beginning = b""
        self._outlet.forget(self)

    def credit(self, n_bytes: int) -> None:
        """The client takes so many bytes more on this stream; fewer, if negative.

        Raises:
            StreamFault: more than there is a number for.
        """
        self._window += n_bytes
        if self._window > MAX_WINDOW:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR)
        if self._unsent:
            owner = self._owner  # it may be over with what leaves
            self._leave()
            owner.go_on()

    def _leave(self) -> None:
        """Send what the windows allow."""
        outlet = self._outlet
        while self._unsent:
            data = self._unsent[0]
            most = min(self._window, outlet.window, outlet.max_frame_bytes)
            if most <= 0:
                if outlet.window <= 0:
                    outlet.wait(self)
                return
            part = data[self._at : self._at + most] if self._at or len(data) > most else data
            self._spend(part)
            if self._at == len(data):
                self._at = 0
                self._unsent.popleft()
                if self._flushed_at != outlet.n_flushes:
                    self._n_flushed, self._flushed_at = self.n_sent, outlet.n_flushes
                self.n_sent += 1
        if self._end:
            flags = END_HEADERS | END_STREAM
            outlet.add(frame(FrameType.HEADERS, flags, self._stream_id, self._end))
            self._end = b""
            self._owner.all_left()

    def _spend(self, part: bytes) -> None:
        n_bytes = len(part)
        head = HEADER.pack(n_bytes >> 8, n_bytes & 0xFF, FrameType.DATA, 0, self._stream_id)
        self._outlet.add(head + part)
        self._outlet.window -= n_bytes
        self._window -= n_bytes
        self._at += n_bytes
        self.n_unsent_bytes -= n_bytes
