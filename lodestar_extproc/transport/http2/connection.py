"""Http2Connection: one client, from its preface to its end, frame by frame.

What a client does wrong ends its stream, or the connection with a GOAWAY that says why; nothing
that comes from a client raises out of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import ClassVar

from lodestar_extproc.transport.calls import Services, Status
from lodestar_extproc.transport.http2.floods import (
    EMPTY_BURST,
    EMPTY_PER_S,
    RESET_BURST,
    RESET_PER_S,
    Allowance,
)
from lodestar_extproc.transport.http2.frame_reader import Frame, FrameReader, require_other
from lodestar_extproc.transport.http2.frames import (
    ACK,
    END_STREAM,
    MAX_STREAM_ID,
    ConnectionFault,
    ErrorCode,
    FrameType,
    Http2Setting,
    StreamFault,
    frame,
    goaway,
    rst_stream,
    window_update,
)
from lodestar_extproc.transport.http2.greeting import CONNECTION_WINDOW_BYTES, GREETING
from lodestar_extproc.transport.http2.header_blocks import HeaderBlocks
from lodestar_extproc.transport.http2.host import Wire
from lodestar_extproc.transport.http2.outlet import Outlet
from lodestar_extproc.transport.http2.peer_settings import settings_in
from lodestar_extproc.transport.http2.stream import Http2Call
from lodestar_extproc.transport.http2.streams import Streams
from lodestar_extproc.transport.http2.windows import ReceiveWindow

STREAMS_A_FRAME = 100
"""A setting that changes so many streams is as much work as a frame for each hundred."""
_DRAINING = b"draining"  # of a PING, 8 bytes
_log = logging.getLogger(__name__)


class Http2Connection:
    """Serves one client.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, services: Services, wire: Wire, clock: Callable[[], float]) -> None:
        self.outlet = Outlet(wire.write, wire.soon)
        self.wire = wire
        self._services = services
        self._reader = FrameReader()
        self._headers = HeaderBlocks()
        self._streams = Streams()
        self._empty = Allowance(EMPTY_BURST, EMPTY_PER_S, clock)
        self._resets = Allowance(RESET_BURST, RESET_PER_S, clock)
        self._window = ReceiveWindow(CONNECTION_WINDOW_BYTES)
        self._is_closed = self._is_draining = self._is_receiving = False
        self._last_taken_id = MAX_STREAM_ID

    @property
    def is_settled(self) -> bool:
        """Whether the client has begun as it has to."""
        return self._reader.is_settled

    def begin(self) -> None:
        """Say what we take."""
        self.outlet.add(GREETING)
        self.outlet.flush()

    def receive(self, data: bytes) -> None:
        """Take what the client sent."""
        if self._is_closed:
            return
        self._is_receiving = True
        self.outlet.hold()
        try:
            for came in self._reader.feed(data):
                self._take(came)
        except ConnectionFault as fault:
            self.close(fault.code, str(fault))
        self._is_receiving = False
        self.outlet.flush()
        self._close_ended()

    def drain(self) -> None:
        """Ask the client to begin no more streams, and close when there are none."""
        if self._is_draining or self._is_closed:
            return
        self._is_draining = True
        # Those that are on their way are still served: RFC 9113, section 6.8.
        self.outlet.add(goaway(MAX_STREAM_ID, ErrorCode.NO_ERROR))
        self.outlet.add(frame(FrameType.PING, 0, 0, _DRAINING))
        self.outlet.flush()

    def close(self, code: ErrorCode = ErrorCode.NO_ERROR, text: str = "") -> None:
        """End it now, with all its streams."""
        if self._is_closed:
            return
        if code is not ErrorCode.NO_ERROR:
            _log.info("a client's connection ends: %s: %s", code.name, text)
        self.outlet.add(goaway(self._streams.last_id, code, text))
        self.outlet.flush()
        self.lost()
        self.wire.close()

    def lost(self) -> None:
        """The client has gone, or is to go."""
        self._is_closed = True
        for call in self._streams:
            self._streams.close(call)
            call.close(heard=False)

    # -- of `Host`, for calls -----------------------------------------------------------------

    def ended(self, call: Http2Call) -> None:
        """All that was to be sent on it has left."""
        if not call.is_half_closed:
            # As gRPC does: the client need not send the rest.
            self.outlet.add(rst_stream(call.stream_id, ErrorCode.NO_ERROR))
        self._streams.end(call)
        if not self._is_receiving:
            self._close_ended()

    def _close_ended(self) -> None:
        for call in self._streams.take_ended():
            call.close()
        self._close_when_drained()

    def cut(self, call: Http2Call) -> None:
        """End it at once, whatever has not left."""
        self.outlet.add(rst_stream(call.stream_id, ErrorCode.CANCEL))
        self._over(call)

    def _over(self, call: Http2Call, *, by_client: bool = False) -> None:
        self._streams.close(call, by_client=by_client)
        call.close(heard=not by_client)
        self._close_when_drained()

    def _close_when_drained(self) -> None:
        if self._last_taken_id != MAX_STREAM_ID and not self._streams:
            self.close()

    # -- frames -------------------------------------------------------------------------------

    def _take(self, came: Frame) -> None:
        if self._is_closed:
            return
        take = self._TAKEN.get(came.kind)
        if take is None:
            self._require_allowed(self._empty)  # GOAWAY, and what is unknown here: ignored
            return
        try:
            take(self, came)
        except StreamFault as fault:
            self._reset(came.stream_id, fault.code)

    def _reset(self, stream_id: int, code: ErrorCode) -> None:
        self._require_allowed(self._resets)
        self.outlet.add(rst_stream(stream_id, code))
        call = self._streams.get(stream_id)
        if call is not None:
            self._over(call)
        elif code is not ErrorCode.STREAM_CLOSED:
            self._streams.ended_here(stream_id)

    def _require_allowed(self, allowance: Allowance) -> None:
        if not allowance.take():
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a flood")

    def _data(self, came: Frame) -> None:
        if not self._window.take(came.n_bytes):
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than was granted")
        if self._window.is_worth_granting:
            self.outlet.add(window_update(0, self._window.grant()))
        is_last = bool(came.flags & END_STREAM)
        if came.payload:
            self._empty.give()
        elif not is_last:
            self._require_allowed(self._empty)
        call = self._streams.get(came.stream_id)
        if call is None:
            if not self._streams.is_ended_here(came.stream_id, at_last=is_last):
                raise StreamFault(ErrorCode.STREAM_CLOSED)
            return
        if call.is_half_closed:
            raise StreamFault(ErrorCode.STREAM_CLOSED)
        call.data(came.payload, came.n_bytes, is_last=is_last)

    def _header_block(self, came: Frame) -> None:
        is_last = bool(came.flags & END_STREAM)
        if self._streams.is_new(came.stream_id):
            self._open(came.stream_id, came.payload, is_last=is_last)
            return
        are_trailers = self._headers.are_trailers(came.payload)
        call = self._streams.get(came.stream_id)
        if call is None:
            if not self._streams.is_ended_here(came.stream_id, at_last=is_last):
                raise ConnectionFault(ErrorCode.STREAM_CLOSED, "headers on a closed stream")
        elif call.is_half_closed:
            raise StreamFault(ErrorCode.STREAM_CLOSED)
        elif not (is_last and are_trailers):
            raise StreamFault(ErrorCode.PROTOCOL_ERROR)
        else:
            call.half_close()

    def _open(self, stream_id: int, block: bytes, *, is_last: bool) -> None:
        head = self._headers.head(block)
        if stream_id > self._last_taken_id:
            self._streams.ended_here(stream_id)
            return
        call = Http2Call(self, stream_id, head, half_closed=is_last)
        self._streams.open(call)
        opened = self._services.get(head.path)
        if head.is_grpc and opened is None:
            call.end(Status.UNIMPLEMENTED, f"no method {head.path} here")
        elif head.is_grpc and opened is not None:
            call.begin(opened, head.timeout_s)
        if is_last and not call.is_over:
            call.half_close()

    def _rst_stream(self, came: Frame) -> None:
        call = self._streams.get(came.stream_id)
        if call is None:
            self._streams.is_ended_here(came.stream_id, at_last=True)
            if (unheard := self._streams.just_ended(came.stream_id)) is not None:
                unheard.close(heard=False)
            return
        if not call.brought_message:
            self._require_allowed(self._resets)
        self._over(call, by_client=True)

    def _priority(self, came: Frame) -> None:
        self._require_allowed(self._empty)
        require_other(came.payload, came.stream_id)

    def _settings(self, came: Frame) -> None:
        self._require_allowed(self._empty)
        if came.flags & ACK:
            return
        given = settings_in(came.payload)
        outlet = self.outlet
        outlet.max_frame_bytes = given.get(Http2Setting.MAX_FRAME_SIZE, outlet.max_frame_bytes)
        window = given.get(Http2Setting.INITIAL_WINDOW_SIZE, outlet.first_window)
        more, outlet.first_window = window - outlet.first_window, window
        outlet.add(frame(FrameType.SETTINGS, ACK, 0))
        for i, call in enumerate(self._streams if more else ()):
            if not i % STREAMS_A_FRAME:
                self._require_allowed(self._empty)
            try:
                call.credit(more)
            except StreamFault as fault:
                raise ConnectionFault(fault.code, "INITIAL_WINDOW_SIZE for open streams") from None

    def _ping(self, came: Frame) -> None:
        self._require_allowed(self._empty)
        if not came.flags & ACK:
            self.outlet.add(frame(FrameType.PING, ACK, 0, came.payload))
        elif self._is_draining and came.payload == _DRAINING:
            self._last_taken_id = self._streams.last_id
            self.outlet.add(goaway(self._last_taken_id, ErrorCode.NO_ERROR))
            self._close_when_drained()

    def _window_update(self, came: Frame) -> None:
        n_bytes = int.from_bytes(came.payload, "big") & MAX_STREAM_ID
        if not came.stream_id:
            if not n_bytes:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of nothing")
            self.outlet.credit(n_bytes)
            return
        call = self._streams.get(came.stream_id)
        if call is not None:
            if not n_bytes:
                raise StreamFault(ErrorCode.PROTOCOL_ERROR)
            call.credit(n_bytes)

    _TAKEN: ClassVar[Mapping[int, Callable[[Http2Connection, Frame], None]]] = MappingProxyType(
        {
            FrameType.DATA: _data,
            FrameType.HEADERS: _header_block,
            FrameType.PRIORITY: _priority,
            FrameType.RST_STREAM: _rst_stream,
            FrameType.SETTINGS: _settings,
            FrameType.PING: _ping,
            FrameType.WINDOW_UPDATE: _window_update,
        }
    )
