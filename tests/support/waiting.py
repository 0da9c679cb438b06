"""until(): tests wait for events, not for time; a machine may be busy for a long while."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

DEADLINE_S = 60.0
"""Reached only where what is waited for never happens."""
POLL_S = 0.005


async def until(condition: Callable[[], Any], deadline_s: float = DEADLINE_S) -> Any:
    """The first true value of *condition*, a function or a coroutine function.

    Raises:
        AssertionError: there was none by the deadline.
    """
    give_up_at_s = time.monotonic() + deadline_s
    while not (value := await _value(condition)):
        assert time.monotonic() < give_up_at_s, "what was waited for did not happen"
        await asyncio.sleep(POLL_S)
    return value


async def _value(condition: Callable[[], Any]) -> Any:
    value = condition()
    return await value if inspect.isawaitable(value) else value
