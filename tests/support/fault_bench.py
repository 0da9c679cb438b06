"""The fault bench: steady load through a real Envoy, one fault after another, then pairs of them.

usage: python tests/support/fault_bench.py [--json] [--pairs N] [--seed N] [--only WORD]

Every fault has limits of what it may cost; whatever goes beyond them is a breach, and the exit
status is then 1.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from faults import FAULTS, NOTICED_S, Fault
from open_load import OpenLoad
from process_stack import ProcessStack, running_processes
from steady_load import Sent
from waiting import until
from wheels import NEWEST, OLDEST, Wheel

RATE = 20.0
"""Requests a second: enough for a 99th percentile in seconds, little beside what two cores do."""
BASELINE_S = 8.0
N_ENGINES = 3


@dataclass
class Told:
    """What came of one fault, or of two at once."""

    name: str
    envoy: str
    requests: int
    failed: int
    added_p99_ms: float
    recovery_s: float
    breaches: list[str] = field(default_factory=list)


class FaultBench:
    """Strikes one running stack again and again."""

    def __init__(self, stack: ProcessStack, wheel: str) -> None:
        self._stack = stack
        self._wheel = wheel
        self._p99_ms = 0.0

    async def measure_baseline(self) -> None:
        """How long first bytes take while nothing is wrong."""
        async with OpenLoad(self._stack.envoy.url, RATE) as load:
            await asyncio.sleep(BASELINE_S)
        assert not load.problems, load.problems
        self._p99_ms = p99_ms(load.ended)

    async def strike(self, faults: Sequence[Fault]) -> Told:
        """What *faults* cost from the first moment until decisions are made again."""
        async with OpenLoad(self._stack.envoy.url, RATE) as load:
            await until(lambda: len(load.ended) >= 5)
            under_way = load.n_streaming + len(load.open)
            begin_s = time.monotonic()
            async with AsyncExitStack() as befallen:
                for fault in faults:
                    await befallen.enter_async_context(fault.befall(self._stack))
                await asyncio.sleep(NOTICED_S)
                over_s = time.monotonic()
            breaches = await self._recover(max(fault.recovery_s for fault in faults))
            recovery_s = time.monotonic() - over_s
        sent = load.started_between(begin_s)
        told = Told(
            " + ".join(fault.name for fault in faults),
            self._wheel,
            requests=len(load.ended),
            failed=len(load.problems),
            added_p99_ms=round(max(0.0, p99_ms(sent) - self._p99_ms), 1),
            recovery_s=round(recovery_s, 2),
            breaches=breaches,
        )
        lost = under_way if any(fault.strikes for fault in faults) else 0
        may_fail = sum(fault.may_fail for fault in faults) + lost
        if told.failed > may_fail:
            said = load.problems[0].problem
            told.breaches.append(f"{told.failed} failed, {may_fail:g} may: {said}")
        may_take_ms = sum(fault.added_p99_ms for fault in faults)
        if told.added_p99_ms > may_take_ms:
            told.breaches.append(f"{told.added_p99_ms:g} ms at p99, {may_take_ms:g} may be added")
        return await self._after(told)

    async def _recover(self, within_s: float) -> list[str]:
        """Until a decision is made and everything is healthy; what did not happen in time."""
        service = self._stack.service

        async def decisions() -> float:
            return await service.metric("lodestar_decisions_total")

        async def decides() -> bool:
            return await self._stack.service_is_healthy() and await decisions() > before

        try:
            before = await decisions()
            await until(decides, within_s)
        except (AssertionError, OSError) as error:
            return [f"no decision {within_s:g} s after the end: {error!r}"]
        return []

    async def _after(self, told: Told) -> Told:
        """Add what must hold whatever happened: nothing is left open, and nothing failed inside."""
        try:
            await until(self._stack.nothing_is_open, 30.0)
        except AssertionError:
            told.breaches.append("requests are still counted as open after 30 s")
        for name in ("lodestar_task_failures_total", "lodestar_stream_failures_total"):
            if failures := await self._stack.service.metric(name):
                told.breaches.append(f"{name} is {failures:g}")
        return told


def p99_ms(sent: Sequence[Sent]) -> float:
    """How long streams waited for their first byte, at the 99th percentile."""
    waited = sorted(each.waited_s for each in sent if each.streamed and not each.problem)
    return 1e3 * waited[math.ceil(0.99 * len(waited)) - 1] if waited else 0.0


def drawn_pairs(faults: Sequence[Fault], n: int, seed: int) -> list[tuple[Fault, ...]]:
    """*n* pairs of faults that strike different parts."""
    apart = [pair for pair in itertools.combinations(faults, 2) if pair[0].part != pair[1].part]
    return random.Random(seed).sample(apart, min(n, len(apart)))


@asynccontextmanager
async def running_bench(wheel: Wheel, name: str) -> AsyncIterator[FaultBench]:
    """All processes, on one Envoy."""
    with tempfile.TemporaryDirectory() as written:
        folder = Path(written)
        states = {"checkpoint_path": str(folder / "learned"), "checkpoint_interval_s": 1.0}
        states["journal_path"] = str(folder / "journal")
        async with running_processes(
            folder, wheel.file, binary=wheel.binary, n_engines=N_ENGINES, **states
        ) as stack:
            bench = FaultBench(stack, name)
            await until(stack.service_is_healthy)
            await bench.measure_baseline()
            yield bench


async def bench(asked: argparse.Namespace) -> list[Told]:
    faults = [fault for fault in FAULTS if asked.only in fault.name]
    strikes = [(fault,) for fault in faults] + drawn_pairs(faults, asked.pairs, asked.seed)
    told = []
    for name, wheel in (("newest", NEWEST), ("oldest", OLDEST)):
        if not wheel.binary.exists():
            print(f"no {name} Envoy: make oldest-envoy", file=sys.stderr)
            continue
        async with running_bench(wheel, name) as running:
            for each in strikes:
                told.append(await running.strike(each))
                if not asked.json:
                    show(told[-1])
    return told


def show(told: Told) -> None:
    figures = (
        f"{told.envoy:7} {told.requests:5} requests {told.failed:4} failed "
        f"{told.added_p99_ms:8.1f} ms added {told.recovery_s:6.2f} s to recover"
    )
    print(f"{figures}  {told.name}", *(f"    BREACH {each}" for each in told.breaches), sep="\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one object, with `faults`")
    parser.add_argument("--pairs", type=int, default=8, help="random pairs, for each Envoy")
    parser.add_argument("--seed", type=int, default=0, help="of the pairs")
    parser.add_argument("--only", default="", help="faults whose name holds this word")
    asked = parser.parse_args()
    told = asyncio.run(bench(asked))
    if asked.json:
        print(json.dumps({"faults": [asdict(each) for each in told]}, indent=1))
    return int(any(each.breaches for each in told))


if __name__ == "__main__":
    sys.exit(main())
