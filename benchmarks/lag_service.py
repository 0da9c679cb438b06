"""`serve`, whose event loop says every 2 ms how late it is, for `loop_lag.py`.

python benchmarks/lag_service.py FILE serve OPTIONS
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable

import numpy as np

from lodestar_extproc.commands.cli import main
from lodestar_extproc.service import app

INTERVAL_S = 0.002
"""Ten times shorter than a hold-up that would show in a p99 of first tokens."""
N_SAMPLES = 1_000_000
"""Half an hour of them; what lies beyond is not written."""
WHEN, LATE, CPU, LOOP_CPU, N_COLUMNS = range(5)


def watching(file: str) -> Callable[[Callable[[float], None]], object]:
    """What runs in place of the service's own look at its loop, ten times a second."""
    samples = np.memmap(file, float, "w+", shape=(N_SAMPLES, N_COLUMNS))

    async def watch(note: Callable[[float], None]) -> None:
        clock = time.monotonic
        for row in samples:
            begin_s, cpu_s, loop_s = clock(), time.process_time(), time.thread_time()
            await asyncio.sleep(INTERVAL_S)
            late_s = max(0.0, clock() - begin_s - INTERVAL_S)
            note(late_s)
            row[CPU], row[LOOP_CPU] = time.process_time() - cpu_s, time.thread_time() - loop_s
            row[LATE], row[WHEN] = late_s, begin_s

    return watch


if __name__ == "__main__":
    app.watch_lag = watching(sys.argv.pop(1))  # type: ignore[assignment]
    main()
