"""A soak: an hour of requests through a real Envoy, with engines that come and go.

usage: python tests/support/soak.py [--seconds N] [--rate N] [--churn N] [--json FILE]

One client in twenty misbehaves. A well-behaved request that fails, memory that grows, or anything
that is left at the end is a breach, and the exit status is then 1. Ctrl-C ends it early, in order.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fault import beside
from soak_clients import SoakClients
from soak_curve import MemoryCurve, Point
from soak_loop_lag import LoopLag
from soak_stack import N_ENGINES, SoakStack, running_soak

HOUR_S = 3600.0
RATE = 150.0
"""540,000 requests in an hour, on about one core."""
CHURN_S = 10.0
SAMPLE_S = 5.0
PROGRESS_S = 60.0
FIRST_S = 10.0
"""Load before the first look, so that what is made on demand is there."""
QUIET_WITHIN_S = 60.0
"""After the last request, until all is given back."""
MAX_SLOPE_MIB_PER_H = 1.0
MAY_VARY = {"sockets": N_ENGINES}
"""Connections to engines are kept for a while, two to each, and made anew."""
FAILURES = ("lodestar_task_failures_total", "lodestar_stream_failures_total")


@dataclass
class Soaked:
    """What came of it; `left` is what was open before and after,
    and `held` what the service held then."""

    seconds: float
    requests: int
    answered: int
    failed: int
    problems: list[str]
    misbehaved: dict[str, int]
    answer_ms: dict[str, float]
    engines_joined: int
    verdicts: dict[str, float]
    requests_by_outcome: dict[str, float]
    slope_mib_per_h: dict[str, float]
    untrimmed_slope_mib_per_h: dict[str, float]
    memory_mib: list[Point]
    trimmed_mib: list[Point]
    loop_lag: dict[str, Any]
    cpu_s: dict[str, float]
    left: dict[str, tuple[float, float]]
    held: tuple[dict[str, dict[str, int]], ...]
    breaches: list[str] = field(default_factory=list)


class Soak:
    """One run on one stack."""

    def __init__(self, stack: SoakStack, asked: argparse.Namespace) -> None:
        self._stack = stack
        self._asked = asked
        self._curve = MemoryCurve()
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Begin no more requests; look at what is left. Idempotent."""
        self._stop.set()

    async def run(self) -> Soaked:
        service = self._stack.service
        async with self._clients():
            await self._stopped_within(FIRST_S)
        before = await self._quiet()
        held = await service.held()
        lag = LoopLag(await service.page())
        cpu_s = self._cpu_s()
        began_s = time.monotonic()
        async with (
            beside(self._stack.endpoints.churn(self._asked.churn)),
            self._clients() as clients,
        ):
            await self._watch(clients, began_s)
            ran_s = time.monotonic() - began_s
        used_s = {name: round(now - cpu_s[name], 1) for name, now in self._cpu_s().items()}
        lag = lag.until(await service.page())
        after = await self._quiet(before)
        held_after = await service.held()
        soaked = Soaked(
            seconds=round(ran_s, 1),
            requests=clients.n_sent,
            answered=clients.answered,
            failed=clients.failed,
            problems=clients.problems,
            misbehaved=dict(clients.misbehaved),
            answer_ms=_percentiles(clients.took_ms),
            engines_joined=self._stack.endpoints.n_joined,
            verdicts=await service.metric_by_label("lodestar_streams_total", "verdict"),
            requests_by_outcome=await service.metric_by_label("lodestar_requests_total", "outcome"),
            slope_mib_per_h=asdict(self._curve.slope()),
            untrimmed_slope_mib_per_h=asdict(self._curve.untrimmed_slope()),
            memory_mib=self._curve.samples,
            trimmed_mib=self._curve.trimmed,
            loop_lag=lag.told(),
            cpu_s=used_s,
            left={name: (before[name], after[name]) for name in before},
            held=(held, held_after),
        )
        soaked.breaches = await self._breaches(soaked)
        return soaked

    def _clients(self) -> SoakClients:
        return SoakClients("127.0.0.1", self._stack.envoy.port, self._asked.rate)

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return False
        return True

    async def _watch(self, clients: SoakClients, began_s: float) -> None:
        """Until the time is over: sample memory, and tell a line each minute."""
        told_s = 0.0
        while True:
            ran_s = time.monotonic() - began_s
            self._stack.service.check_alive()
            self._curve.sample(ran_s, self._stack.service.pid)
            if ran_s >= told_s:
                told_s += PROGRESS_S
                await self._curve.sample_trimmed(ran_s, self._stack.service.pid)
                self._tell(clients, ran_s)
            left_s = self._asked.seconds - ran_s
            if left_s <= 0 or await self._stopped_within(min(SAMPLE_S, left_s)):
                return

    def _tell(self, clients: SoakClients, ran_s: float) -> None:
        mib, trimmed_mib = self._curve.samples[-1][1], self._curve.trimmed[-1][1]
        print(
            f"{ran_s:6.0f} s {clients.n_sent:7} requests {clients.failed} failed, "
            f"{mib:.1f} MiB, {trimmed_mib:.1f} trimmed, {self._stack.endpoints.n_joined} engines so far",
            flush=True,
        )

    async def _quiet(self, as_before: dict[str, float] | None = None) -> dict[str, float]:
        """What is open once nothing moves any more, or is no more than *as_before*."""
        give_up_at_s = time.monotonic() + QUIET_WITHIN_S
        last: dict[str, float] = {}
        while (now := await self._stack.what_is_open()) != last or as_before is not None:
            if time.monotonic() > give_up_at_s:
                break
            if as_before is not None and not _left(now, as_before):
                break
            last = now
            await asyncio.sleep(2.0)
        return now

    def _cpu_s(self) -> dict[str, float]:
        pids = {
            "service": self._stack.service.pid,
            "Envoy": self._stack.envoy.pid,
            "engines": self._stack.engine_process.pid,
            "clients": os.getpid(),
        }
        return {name: _cpu_s(pid) for name, pid in pids.items()}

    async def _breaches(self, soaked: Soaked) -> list[str]:
        breaches = [f"failed: {each}" for each in soaked.problems]
        unknown = soaked.requests - soaked.answered - soaked.failed
        if unknown := unknown - sum(soaked.misbehaved.values()):
            breaches.append(f"{unknown} requests of which nothing is known")
        slope = soaked.slope_mib_per_h["mib_per_h"]
        if self._curve.is_judged() and slope > MAX_SLOPE_MIB_PER_H:
            breaches.append(f"memory grows by {slope} MiB an hour")
        before, after = ({k: v[i] for k, v in soaked.left.items()} for i in (0, 1))
        breaches += _left(after, before)
        counts = {name: await self._stack.service.metric(name) for name in FAILURES}
        return breaches + [f"{name} is {n:g}" for name, n in counts.items() if n]


def _left(now: dict[str, float], before: dict[str, float]) -> list[str]:
    """What there is more of *now* than *before*."""
    return [
        f"{name}: {n:g} are left, {before[name]:g} were before"
        for name, n in now.items()
        if n > before[name] + MAY_VARY.get(name, 0)
    ]


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _percentiles(values: Any) -> dict[str, float]:
    if not len(values):
        return {}
    points = {"p50": 50.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
    return {name: round(float(np.percentile(values, q)), 1) for name, q in points.items()}


async def soak(asked: argparse.Namespace) -> Soaked:
    with tempfile.TemporaryDirectory() as folder:
        async with running_soak(Path(folder)) as stack:
            run = Soak(stack, asked)
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, run.stop)
            return await run.run()


def show(soaked: Soaked) -> None:
    for name, value in asdict(soaked).items():
        if name not in ("memory_mib", "trimmed_mib", "held", "breaches"):
            print(f"{name}: {value}")
    print(*(f"BREACH {each}" for each in soaked.breaches), sep="\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=HOUR_S, help="how long the load lasts")
    parser.add_argument("--rate", type=float, default=RATE, help="requests a second")
    parser.add_argument("--churn", type=float, default=CHURN_S, help="seconds, one engine each")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures, with the curve")
    asked = parser.parse_args()
    soaked = asyncio.run(soak(asked))
    if asked.json is not None:
        asked.json.write_text(json.dumps(asdict(soaked), indent=1))
    show(soaked)
    return int(bool(soaked.breaches))


if __name__ == "__main__":
    sys.exit(main())
