"""GREETING: what we take, said as a connection begins."""

from __future__ import annotations

from lodestar_extproc.transport.calls import MAX_CONCURRENT_STREAMS
from lodestar_extproc.transport.http2.frame_reader import MAX_FRAME_BYTES
from lodestar_extproc.transport.http2.frames import (
    FIRST_WINDOW,
    Http2Setting,
    settings,
    window_update,
)
from lodestar_extproc.transport.http2.header_blocks import MAX_BLOCK_BYTES
from lodestar_extproc.transport.http2.stream import WINDOW_BYTES

CONNECTION_WINDOW_BYTES = 16 * 2**20
"""What all streams together may have on the way; it is granted again as it comes, as what a stream
may hold is bounded by its own window."""
GREETING = settings(
    {
        Http2Setting.MAX_CONCURRENT_STREAMS: MAX_CONCURRENT_STREAMS,
        Http2Setting.INITIAL_WINDOW_SIZE: WINDOW_BYTES,
        Http2Setting.MAX_FRAME_SIZE: MAX_FRAME_BYTES,
        Http2Setting.MAX_HEADER_LIST_SIZE: MAX_BLOCK_BYTES,
    }
) + window_update(0, CONNECTION_WINDOW_BYTES - FIRST_WINDOW)
