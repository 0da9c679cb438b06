"""watch_lag(): how late the event loop is, measured for as long as the service runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LAG_INTERVAL_S = 0.1
"""A stall as long as a human notices is met by a timer; ten wake-ups a second cost nothing."""


async def watch_lag(note: Callable[[float], None]) -> None:
    """Tell *note* again and again by how many seconds a timer was late."""
    clock = asyncio.get_running_loop().time
    while True:
        asleep_at_s = clock()
        await asyncio.sleep(LAG_INTERVAL_S)
        note(max(0.0, clock() - asleep_at_s - LAG_INTERVAL_S))
