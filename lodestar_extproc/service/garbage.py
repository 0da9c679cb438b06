"""settle_garbage(): what lives as long as the process is no work for the garbage collector."""

from __future__ import annotations

import gc


def settle_garbage() -> None:
    """What lives as long as the process need not be looked at again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
