"""settings_in(): what a client sets, checked."""

from __future__ import annotations

import struct

from lodestar_extproc.transport.http2.frames import (
    LEAST_FRAME_BYTES,
    MAX_WINDOW,
    MOST_FRAME_BYTES,
    ConnectionFault,
    ErrorCode,
    Http2Setting,
)

_PAIR = struct.Struct(">HL")


def settings_in(payload: bytes) -> dict[int, int]:
    """By number, what a SETTINGS frame sets; of a number that comes twice the last.

    Raises:
        ConnectionFault: a value that none may have.
    """
    if len(payload) % _PAIR.size:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of a wrong length")
    for name, value in _PAIR.iter_unpack(payload):
        if name == Http2Setting.ENABLE_PUSH and value > 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1")
        if name == Http2Setting.INITIAL_WINDOW_SIZE and value > MAX_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE over 2^31-1")
        if (
            name == Http2Setting.MAX_FRAME_SIZE
            and not LEAST_FRAME_BYTES <= value <= MOST_FRAME_BYTES
        ):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "MAX_FRAME_SIZE out of its range")
    return dict(_PAIR.iter_unpack(payload))
