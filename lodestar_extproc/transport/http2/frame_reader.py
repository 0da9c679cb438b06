"""FrameReader: what a client sends, cut into frames; of a header block one frame, however it came.

It knows sizes and the order of frames, and no streams.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from lodestar_extproc.transport.http2.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    HAS_PRIORITY,
    HEADER,
    HEADER_BYTES,
    MAX_STREAM_ID,
    PREFACE,
    ConnectionFault,
    ErrorCode,
    FrameType,
    without_padding,
)
from lodestar_extproc.transport.http2.header_blocks import MAX_BLOCK_BYTES

MAX_FRAME_BYTES = 2**20
"""As gRPC is told to take: HTTP/2's own 16 KiB would cut every large body into many pieces."""
MAX_CONTINUATIONS = 8
"""Of one header block, which fits two frames of the least size (CVE-2024-27316). A judgement."""
_PRIORITY_BYTES = 5  # RFC 9113, section 6.3
_OF_STREAMS = frozenset(
    (
        FrameType.DATA,
        FrameType.HEADERS,
        FrameType.PRIORITY,
        FrameType.RST_STREAM,
        FrameType.CONTINUATION,
    )
)
_OF_CONNECTIONS = frozenset((FrameType.SETTINGS, FrameType.PING, FrameType.GOAWAY))
_SIZES: Mapping[int, int] = MappingProxyType(
    # RFC 9113, section 6.
    {
        FrameType.PRIORITY: _PRIORITY_BYTES,
        FrameType.RST_STREAM: 4,
        FrameType.PING: 8,
        FrameType.WINDOW_UPDATE: 4,
    }
)
_LEAST_GOAWAY_BYTES = 8  # RFC 9113, section 6.8


class Frame(NamedTuple):
    """One frame.

    Attributes:
        payload: without padding and priority; of HEADERS the whole block.
        n_bytes: what came, by which flow is controlled.
    """

    kind: int
    flags: int
    stream_id: int
    payload: bytes
    n_bytes: int


class FrameReader:
    """Keeps what is not a whole frame yet: at most one frame, and one header block."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._wanted = 1
        self._is_greeted = self._is_set = False
        self._block: Frame | None = None
        self._n_continuations = 0

    @property
    def is_settled(self) -> bool:
        """Whether the client has begun as it has to: with its preface and its settings."""
        return self._is_set

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take *data*; the frames that are whole now.

        Raises:
            ConnectionFault: no frame can be read from here on.
        """
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._wanted:
                return
            data = bytes(self._buffer)
            self._buffer.clear()
        at, end = self._after_preface(data), len(data)
        while self._is_greeted and end - at >= HEADER_BYTES:
            high, low, kind, flags, stream_id = HEADER.unpack_from(data, at)
            n_bytes = high << 8 | low
            if n_bytes > MAX_FRAME_BYTES:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a frame over 1 MiB")
            begin = at + HEADER_BYTES
            if end - begin < n_bytes:
                break
            at = begin + n_bytes
            frame = Frame(kind, flags, stream_id & MAX_STREAM_ID, data[begin:at], n_bytes)
            if kind or flags & ~END_STREAM or not stream_id or self._block is not None:
                whole = self._whole(frame)
                if whole is not None:
                    yield whole
            elif self._is_set:
                yield frame
            else:
                raise _not_set()
        if at < end:
            self._buffer += data[at:]
            self._wanted = self._wanted_now(data, at, end)

    def _wanted_now(self, data: bytes, at: int, end: int) -> int:
        """How many bytes of the rest make it worth a look."""
        if not self._is_greeted:
            return end - at + 1  # its first wrong byte is enough
        if end - at < HEADER_BYTES:
            return HEADER_BYTES
        return HEADER_BYTES + int.from_bytes(data[at : at + 3], "big")

    def _after_preface(self, data: bytes) -> int:
        """Where in *data* frames begin."""
        if self._is_greeted:
            return 0
        if not PREFACE.startswith(data[: len(PREFACE)]):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "no HTTP/2: a wrong preface")
        if len(data) < len(PREFACE):
            return 0
        self._is_greeted = True
        return len(PREFACE)

    def _whole(self, frame: Frame) -> Frame | None:
        """*frame* without what is none of its content; None where more of it is to come."""
        if not self._is_set:
            if frame.kind != FrameType.SETTINGS or frame.flags & ACK:
                raise _not_set()
            self._is_set = True
        if self._block is not None:
            return self._continued(self._block, frame)
        _require_shape(frame)
        if frame.kind == FrameType.DATA:
            return frame._replace(payload=without_padding(frame.flags, frame.payload))
        if frame.kind == FrameType.CONTINUATION:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
        if frame.kind != FrameType.HEADERS:
            return frame
        block = without_padding(frame.flags, frame.payload)
        if frame.flags & HAS_PRIORITY:
            if len(block) < _PRIORITY_BYTES:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS without its priority")
            require_other(block, frame.stream_id)
            block = block[_PRIORITY_BYTES:]
        return self._ended(frame._replace(payload=block))

    def _continued(self, begun: Frame, frame: Frame) -> Frame | None:
        if frame.kind != FrameType.CONTINUATION or frame.stream_id != begun.stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "headers were interrupted")
        self._n_continuations += 1
        if self._n_continuations > MAX_CONTINUATIONS:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many CONTINUATIONs")
        flags = begun.flags | frame.flags & END_HEADERS
        return self._ended(begun._replace(flags=flags, payload=begun.payload + frame.payload))

    def _ended(self, block: Frame) -> Frame | None:
        if len(block.payload) > MAX_BLOCK_BYTES:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "headers over 16 KiB")
        if block.flags & END_HEADERS:
            self._block, self._n_continuations = None, 0
            return block
        self._block = block
        return None


def _require_shape(frame: Frame) -> None:
    """Refuse what cannot be a frame of its kind, or where it came."""
    kind, n_bytes = frame.kind, frame.n_bytes
    if (kind in _OF_STREAMS and not frame.stream_id) or (
        kind in _OF_CONNECTIONS and frame.stream_id
    ):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"frame {kind} on stream {frame.stream_id}")
    if kind == FrameType.PUSH_PROMISE:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE of a client")
    if (
        n_bytes != _SIZES.get(kind, n_bytes)
        or (kind == FrameType.GOAWAY and n_bytes < _LEAST_GOAWAY_BYTES)
        or (kind == FrameType.SETTINGS and frame.flags & ACK and n_bytes)
    ):
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"frame {kind} of {n_bytes} bytes")


def require_other(priority: bytes, stream_id: int) -> None:
    """Refuse a stream that depends on itself.

    Raises:
        ConnectionFault: it does.
    """
    if int.from_bytes(priority[:4], "big") & MAX_STREAM_ID == stream_id:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a stream that depends on itself")


def _not_set() -> ConnectionFault:
    return ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is no SETTINGS")
