"""What may befall engines, and what they may answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fault import ENDLESS, Befall, Fault
from fault_stack import FaultStack
from process_stack import Engine

JUST_SENT = 3
"""Requests that may be written to an engine between counting those under way and its death."""
FOUND_OUT = 6
"""Wrong answers that clients may see: three until it is found out, and trials that follow."""


def engine_fault(kind: str) -> Befall:
    """As `echo_engine.py` knows them."""

    @asynccontextmanager
    async def befall(stack: FaultStack) -> AsyncIterator[None]:
        await stack.engines[0].break_down(kind)
        yield
        await stack.engines[0].break_down("none")

    return befall


def engines_killed(n: int | None) -> Befall:
    @asynccontextmanager
    async def befall(stack: FaultStack) -> AsyncIterator[None]:
        struck: list[Engine] = stack.engines[:n]
        for engine in struck:
            engine.kill()
        yield
        for engine in struck:
            engine.start()
        for engine in struck:
            await engine.ready()
            await engine.break_down("page")

    return befall


def pages(kind: str) -> Befall:
    """The metric pages of all engines, as `echo_engine.py` knows them."""

    @asynccontextmanager
    async def befall(stack: FaultStack) -> AsyncIterator[None]:
        for engine in stack.engines:
            await engine.break_down(kind)
        yield
        for engine in stack.engines:
            await engine.break_down("page")

    return befall


@asynccontextmanager
async def engine_frozen(stack: FaultStack) -> AsyncIterator[None]:
    stack.engines[0].freeze()
    yield
    stack.engines[0].thaw()


def lying(kind: str) -> Fault:
    """An engine that answers so, quickly."""
    name = f"an engine answers {kind}"
    return Fault(name, engine_fault(kind), "engines", may_fail=FOUND_OUT, strikes=1)


WAITS_MS = 5000.0
"""Until the fault is over, and then the answer: whoever was sent there waits."""
FAULTS = (
    Fault("an engine hangs", engine_fault("hang"), "engines", strikes=1, added_p99_ms=WAITS_MS),
    Fault("an engine answers 503", engine_fault("busy"), "engines", strikes=1),
    Fault("an engine resets", engine_fault("reset"), "engines", may_fail=20, strikes=1),
    Fault("an engine is killed", engines_killed(1), "engines", may_fail=JUST_SENT, strikes=1),
    Fault(
        "two of three engines are killed",
        engines_killed(2),
        "engines",
        may_fail=JUST_SENT,
        strikes=2,
    ),
    Fault(
        "all engines are down",
        engines_killed(None),
        "engines",
        may_fail=ENDLESS,
        strikes=3,
        added_p99_ms=ENDLESS,
        recovery_s=15.0,
    ),
    Fault("an engine is frozen", engine_frozen, "engines", strikes=1, added_p99_ms=WAITS_MS),
    Fault("an engine takes a second longer", engine_fault("slow"), "engines", strikes=1),
    Fault("an engine stalls in mid-answer", engine_fault("stall"), "engines", strikes=1),
    *(lying(kind) for kind in ("a page", "nothing", "only [DONE]")),
    Fault("metric pages hang", pages("page hangs"), "pages"),
    Fault("metric pages of a MB", pages("page is huge"), "pages"),
    Fault("metric pages of 4 MB", pages("page is too large"), "pages"),
    Fault("metric pages are garbage", pages("page is garbage"), "pages"),
)
