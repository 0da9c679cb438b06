"""Frames of HTTP/2 and how they are written: https://www.rfc-editor.org/rfc/rfc9113.html."""

from __future__ import annotations

import struct
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER = struct.Struct(">HBBBL")
"""Of a frame: its length in two parts, kind, flags, stream."""
HEADER_BYTES = 9  # RFC 9113, section 4.1
MAX_STREAM_ID = 2**31 - 1  # RFC 9113, section 5.1.1
MAX_WINDOW = 2**31 - 1  # RFC 9113, section 6.9.1
FIRST_WINDOW = 65_535  # RFC 9113, section 6.9.2: before any setting
LEAST_FRAME_BYTES, MOST_FRAME_BYTES = 2**14, 2**24 - 1  # RFC 9113, section 6.5.2


class FrameType(IntEnum):
    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


# RFC 9113, section 6: ACK has the bit of END_STREAM, on other frames.
END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20


class Http2Setting(IntEnum):
    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class ErrorCode(IntEnum):
    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class ConnectionFault(Exception):  # noqa: N818  (the condition's name)
    """The client broke a rule that holds for the whole connection: it ends."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class StreamFault(Exception):  # noqa: N818  (the condition's name)
    """The client broke a rule of one stream: that ends, and no other."""

    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code.name)
        self.code = code


def frame(kind: FrameType, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One frame, whole."""
    n_bytes = len(payload)
    return HEADER.pack(n_bytes >> 8, n_bytes & 0xFF, kind, flags, stream_id) + payload


def settings(values: dict[Http2Setting, int]) -> bytes:
    """A SETTINGS frame."""
    pairs = (struct.pack(">HL", name, value) for name, value in values.items())
    return frame(FrameType.SETTINGS, 0, 0, b"".join(pairs))


def number(value: int) -> bytes:
    """As most frames hold one."""
    return value.to_bytes(4, "big")


def window_update(stream_id: int, n_bytes: int) -> bytes:
    return frame(FrameType.WINDOW_UPDATE, 0, stream_id, number(n_bytes))


def rst_stream(stream_id: int, code: ErrorCode) -> bytes:
    return frame(FrameType.RST_STREAM, 0, stream_id, number(code))


def goaway(last_stream_id: int, code: ErrorCode, text: str = "") -> bytes:
    said = number(last_stream_id) + number(code) + text.encode("ascii", "replace")
    return frame(FrameType.GOAWAY, 0, 0, said)


def without_padding(flags: int, payload: bytes) -> bytes:
    """What a DATA or HEADERS frame holds beside its padding.

    Raises:
        ConnectionFault: there is more padding than frame.
    """
    if not flags & PADDED:
        return payload
    if not payload:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a padded frame without its length")
    end = len(payload) - payload[0]
    if end < 1:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "more padding than frame")
    return payload[1:end]
