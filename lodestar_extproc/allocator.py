"""give_back_long_memory(): what a long body took is the system's again as soon as it is read."""

from __future__ import annotations

import ctypes

_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of glibc's malloc.h
_LONG_BYTES = 256 * 2**10
"""Longer than all that a request without a long body needs. A judgement."""


def give_back_long_memory() -> None:
    """Let memory of what is longer than that go back at once, where the C library is glibc.

    By itself it keeps up to 32 MiB for each size once seen (mallopt(3), M_MMAP_THRESHOLD). Other C
    libraries are left as they are.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_MMAP_THRESHOLD, _LONG_BYTES)
