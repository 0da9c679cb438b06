"""Streams: the streams of one connection, those that are open and what is still known of others."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from lodestar_extproc.transport.calls import MAX_CONCURRENT_STREAMS
from lodestar_extproc.transport.http2.frames import ConnectionFault, ErrorCode, StreamFault
from lodestar_extproc.transport.http2.stream import Http2Call

MAX_ENDED = 10_000
"""Streams that were ended here while the client had more to send, as Envoy has of every decision:
so many are remembered until it has said that it knows. What comes later on one is answered by a
reset, which does no harm."""


class Streams:
    """Owns the calls that are open.

    Attributes:
        last_id: of the newest stream.
    """

    def __init__(self) -> None:
        self.last_id = 0
        self._open: dict[int, Http2Call] = {}
        self._ended: dict[int, None] = {}
        self._just_ended: dict[int, Http2Call] = {}

    def __len__(self) -> int:
        return len(self._open) + len(self._just_ended)

    def __iter__(self) -> Iterator[Http2Call]:
        return iter(tuple(self._open.values()))

    def get(self, stream_id: int) -> Http2Call | None:
        """The call on it; None where it is closed.

        Raises:
            ConnectionFault: there was none yet.
        """
        call = self._open.get(stream_id)
        if call is None and (stream_id > self.last_id or not stream_id & 1):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame on a stream that is idle")
        return call

    def is_new(self, stream_id: int) -> bool:
        """Whether a stream begins; then it is the newest.

        Raises:
            ConnectionFault: no stream may have that number.
        """
        if stream_id <= self.last_id and stream_id & 1:
            return False
        if not stream_id & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client's stream of an even number")
        self.last_id = stream_id
        return True

    def open(self, call: Http2Call) -> None:
        """Keep *call*.

        Raises:
            StreamFault: there are too many.
        """
        if len(self._open) >= MAX_CONCURRENT_STREAMS:
            raise StreamFault(ErrorCode.REFUSED_STREAM)
        self._open[call.stream_id] = call

    def end(self, call: Http2Call) -> None:
        """All was said on it in this turn; the client may have left before, which may come yet."""
        self.close(call, by_client=call.is_half_closed)
        self._just_ended[call.stream_id] = call

    def just_ended(self, stream_id: int) -> Http2Call | None:
        """The call on it, if it has ended in this turn; then it is not taken again."""
        return self._just_ended.pop(stream_id, None)

    def take_ended(self) -> Collection[Http2Call]:
        """Those that have ended in this turn, which is over."""
        ended, self._just_ended = self._just_ended, {}
        return ended.values()

    def close(self, call: Http2Call, *, by_client: bool = False) -> None:
        """It is over; where the client does not know yet, more may come on it."""
        if self._open.pop(call.stream_id, None) is not None and not by_client:
            self.ended_here(call.stream_id)

    def ended_here(self, stream_id: int) -> None:
        """What comes on it is no fault of the client's."""
        self._ended[stream_id] = None
        if len(self._ended) > MAX_ENDED:
            del self._ended[next(iter(self._ended))]

    def is_ended_here(self, stream_id: int, *, at_last: bool) -> bool:
        """Whether the client need not know yet that it is over; *at_last* it does."""
        if at_last:
            return self._ended.pop(stream_id, 0) is None
        return stream_id in self._ended
