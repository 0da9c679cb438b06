"""Http2Call: one stream of a connection, and the call on it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from lodestar_extproc.transport.calls import CallHandler, CallRefused, OpenCall, Status
from lodestar_extproc.transport.http2.frames import ErrorCode, StreamFault, window_update
from lodestar_extproc.transport.http2.header_blocks import BEGINNING, NOT_GRPC, Head, ending
from lodestar_extproc.transport.http2.host import Cancellable, Wire
from lodestar_extproc.transport.http2.messages import MessageReader
from lodestar_extproc.transport.http2.outlet import Outlet, StreamOutlet
from lodestar_extproc.transport.http2.windows import ReceiveWindow

WINDOW_BYTES = 2**20
"""What a client may send on a stream before it is told that more is taken: as much as gRPC was told
to look ahead, so that a body seldom waits for a word of ours."""
MAX_UNSENT_BYTES = 2**20
"""From here on a stream whose answers the client does not take is not read either. A judgement."""


class Host(Protocol):
    """What a call asks of its connection."""

    outlet: Outlet
    wire: Wire

    def ended(self, call: Http2Call) -> None:
        """All that was to be sent on it has left."""

    def cut(self, call: Http2Call) -> None:
        """End it at once, whatever has not left."""


class Http2Call:
    """What has come of a call, and how far it is served.

    Attributes:
        stream_id: of HTTP/2.
        is_half_closed: the client has said that nothing more comes.
        brought_message: a whole message has come.
    """

    __slots__ = (
        "_answer",
        "_deadline",
        "_handler",
        "_host",
        "_inbox",
        "_is_ending",
        "_is_told",
        "_n_heard",
        "_n_to_come",
        "_reader",
        "_task",
        "_window",
        "brought_message",
        "is_half_closed",
        "is_over",
        "metadata",
        "stream_id",
    )

    def __init__(self, host: Host, stream_id: int, head: Head, *, half_closed: bool) -> None:
        self.stream_id = stream_id
        self.metadata: Mapping[str, str] = head.metadata
        self.is_half_closed = half_closed
        self.is_over = self.brought_message = False
        self._host = host
        self._handler: CallHandler | None = None
        beginning = BEGINNING if head.is_grpc else NOT_GRPC
        self._answer = StreamOutlet(host.outlet, stream_id, beginning, self)
        self._reader = MessageReader(head.encoding)
        self._inbox: deque[bytes] = deque()
        self._is_ending = self._is_told = False
        self._task: Cancellable | None = None
        self._deadline: Cancellable | None = None
        self._window = ReceiveWindow(WINDOW_BYTES)
        self._n_to_come, self._n_heard = head.n_bytes, 0

    def begin(self, opened: OpenCall, timeout_s: float | None) -> None:
        """Serve it; where that is never said, it is told at its end that it is no call."""
        if timeout_s is not None:
            self._deadline = self._host.wire.later(timeout_s, self._too_late)
        self._handler = self._asked(opened, self)
        if self.is_over:  # it was ended at once
            self._tell_closed()

    # -- of `Call` ----------------------------------------------------------------------------

    def send(self, message: bytes) -> None:
        if not self._is_ending:
            self._answer.send(message)

    def end(self, status: Status = Status.OK, text: str = "") -> None:
        if not self._is_ending:
            self._is_ending = True
            self._inbox.clear()
            self._answer.end(ending(status, text))

    # -- what the connection tells ------------------------------------------------------------

    def data(self, payload: bytes, n_frame_bytes: int, *, is_last: bool) -> None:
        """Bytes have come; *n_frame_bytes* with their padding.

        Raises:
            StreamFault: more than was allowed, or not as many as were announced.
        """
        if not self._window.take(n_frame_bytes):
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR)
        if self._n_to_come is not None:
            self._n_to_come -= len(payload)
            if self._n_to_come < 0 or (is_last and self._n_to_come):
                raise StreamFault(ErrorCode.PROTOCOL_ERROR)
        self.is_half_closed = is_last
        if payload and self._handler is not None and not self._is_ending:
            self._take(payload)
        if is_last and not self._is_ending:
            self._check_end()
        self.go_on()

    def half_close(self) -> None:
        """Nothing more will come.

        Raises:
            StreamFault: less than was announced has come.
        """
        self.data(b"", 0, is_last=True)

    def credit(self, n_bytes: int) -> None:
        """The client takes so many bytes more.

        Raises:
            StreamFault: more than there is a number for.
        """
        self._answer.credit(n_bytes)

    def close(self, *, heard: bool = True) -> None:
        """The stream is over, however that came; *heard* tells whether what was just said still is.

        Idempotent.
        """
        if self.is_over:
            return
        self.is_over = self._is_ending = True
        self._n_heard = self._answer.n_sent if heard else self._answer.n_written
        self._inbox.clear()
        self._answer.cancel()
        if self._deadline is not None:
            self._deadline.cancel()
        if self._task is not None:
            self._task.cancel()  # when it is over, so are we
        else:
            self._tell_closed()

    # -- handing messages to the service ------------------------------------------------------

    def _take(self, payload: bytes) -> None:
        try:
            messages = self._reader.feed(payload)
        except CallRefused as refused:
            self.end(refused.status, str(refused))
            return
        if messages:
            self.brought_message = True
            self._inbox.extend(messages)

    def _check_end(self) -> None:
        if self._handler is None:
            self._answer.put(b"415: this port speaks gRPC\n")
            self.end(Status.UNKNOWN, "no gRPC")
        elif not self._reader.is_between:
            self.end(Status.INTERNAL, "the call ended in the middle of a message")

    @property
    def _is_held(self) -> bool:
        """Whether the service is to be told nothing for now."""
        return self._task is not None or self._answer.n_unsent_bytes > MAX_UNSENT_BYTES

    def go_on(self) -> None:
        """Hand on what waits."""
        handler = self._handler
        while handler is not None and self._inbox and not self._is_held:
            later = self._asked(handler.received, self._inbox.popleft())
            if later is not None:
                self._task = self._host.wire.run(later, self._worked)
        if handler is not None and self.is_half_closed and not self._is_told:
            self._is_told = not (self._inbox or self._is_held or self._is_ending)
            if self._is_told:
                self._asked(handler.half_closed)
        self._grant()

    def _worked(self, error: Exception | None) -> None:
        """What a message needed is done, or was cut off."""
        self._task = None
        if error is not None:
            self._fail(error)
        if self.is_over:
            self._tell_closed()
        else:
            self.go_on()

    def _asked(self, ask: Callable[..., Any], *given: object) -> Any:
        """What the service says."""
        try:
            return ask(*given)
        except Exception as error:  # noqa: BLE001  (a bug of a service costs its own call)
            self._fail(error)
        return None

    def _grant(self) -> None:
        """Let the client send as much again as was taken, once that is worth a frame."""
        if not self._window.is_worth_granting or self.is_half_closed or self._is_ending:
            return
        if not self._is_held:
            self._host.outlet.add(window_update(self.stream_id, self._window.grant()))

    # -- ends ---------------------------------------------------------------------------------

    def all_left(self) -> None:
        self._host.ended(self)

    def _too_late(self) -> None:
        if self._answer.n_unsent_bytes:
            self._host.cut(self)
        else:
            self.end(Status.DEADLINE_EXCEEDED, "the time that the client set is over")

    def _fail(self, error: Exception) -> None:
        self._host.wire.failed(error)
        self.end(Status.UNKNOWN, "the service failed")

    def _tell_closed(self) -> None:
        # Each refers to the other, and would be left to the garbage collector.
        handler, self._handler = self._handler, None
        if handler is not None:
            self._asked(handler.closed, self._n_heard)
