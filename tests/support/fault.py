"""Fault: something that may befall a running service, and what it may cost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from fault_plan import Form
from fault_stack import FaultStack

NOTICED_S = 3.0
"""How long those last of which health checks have to be failed and noticed."""
SHORT_S = 1.5
"""How long the others last: thirty requests."""
MESSAGE_TIMEOUT_MS = 500.0
"""Of envoy/envoy.yaml: once for the headers, once for the body, and as much for a busy machine."""
ENDLESS = float("inf")
Befall = Callable[[FaultStack], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """One fault, and what it may cost.

    Attributes:
        befall: does it while its context is open, and undoes it at the end; what it asserts and
            is not so is a breach.
        part: what it strikes; faults of different parts may come together.
        form: of the service it strikes.
        may_fail: requests that may fail beside those under way on engines that it strikes.
        strikes: how many engines lose what they were answering.
        added_p99_ms: how much longer than before the first bytes may take, at the 99th percentile.
        recovery_s: how soon decisions are made again after its end, by all who should.
        closes_s: how soon after that no request is counted as open.
        lasts_s: how long it lasts.
        may_fail_inside: failures of tasks inside of the service that belong to it.
    """

    name: str
    befall: Befall
    part: str = "service"
    form: Form = Form.ONE
    may_fail: float = 0
    strikes: int = 0
    added_p99_ms: float = 3 * MESSAGE_TIMEOUT_MS
    recovery_s: float = 10.0
    closes_s: float = 30.0
    lasts_s: float = SHORT_S
    may_fail_inside: int = 0


@asynccontextmanager
async def beside(*work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """*work* goes on meanwhile; whatever it raises is raised at the end."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended
