"""give_back_long_memory(): what a long body took is the system's again as soon as it is read."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_... of glibc's malloc.h
_LONG_BYTES = 256 * 2**10
"""Longer than all that a request without a long body needs. A judgement."""


def give_back_long_memory(longer_than_bytes: int = _LONG_BYTES, *, kept_bytes: int = 0) -> None:
    """Let memory of what is longer than that go back at once, where the C library is glibc.

    By itself it keeps up to 32 MiB for each size once seen (mallopt(3), M_MMAP_THRESHOLD). Other C
    libraries are left as they are.

    Args:
        kept_bytes: free memory that is kept for what is shorter; 0 for glibc's own 128 KiB.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:
        return
    set_option(_MMAP_THRESHOLD, longer_than_bytes)
    if kept_bytes:
        set_option(_TRIM_THRESHOLD, kept_bytes)
