"""One replica's router in a process of its own, under traffic, that writes down what it believes.

python tests/support/history_agent.py URL NUMBER STATUS_FILE

Requests come and end at random until SIGUSR1, after which those that are open stay so: then what
every replica believes has to become the sum of what each has. Its clock is another than everybody's,
and SIGUSR2 has it jump, as that of a machine that slept.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from builders import a_prompt
from lodestar_extproc.config.share import parse_share
from lodestar_extproc.sharing.sharer import Sharer
from sharing_routers import SharingRouter

RATE_PER_S = 60.0
MOST_OPEN = 30
WRITE_EVERY_S = 0.02
APART_S = 1000.0
"""Between the clocks of two replicas."""
LONGEST_JUMP_S = 30.0


class Agent:
    def __init__(self, url: str, number: int, status_file: Path) -> None:
        target = parse_share(url)
        self._rng = random.Random(number)
        self._file = status_file
        self._ahead_s = APART_S * number
        self.replica = SharingRouter(number, frame_s=target.frame_s)
        told = self.replica.told
        self.sharer = Sharer("pool", target, self.replica.shared, told, clock=self._now_s)
        self._open: list = []
        self._busy = True
        self._errors = 0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self._rest)
        loop.add_signal_handler(signal.SIGUSR2, self._jump)
        async with asyncio.TaskGroup() as group:
            group.create_task(self.sharer.run())
            group.create_task(self._work())
            group.create_task(self._write())

    def _now_s(self) -> float:
        return time.monotonic() + self._ahead_s

    def _rest(self) -> None:
        self._busy = False

    def _jump(self) -> None:
        self._ahead_s += self._rng.uniform(0.0, LONGEST_JUMP_S)

    async def _work(self) -> None:
        while True:
            if self._busy:
                self._step()
            await asyncio.sleep(self._rng.expovariate(RATE_PER_S))

    def _step(self) -> None:
        replica, rng = self.replica, self._rng
        began_s = time.monotonic()
        self._open.append(
            replica.send(a_prompt(rng.randint(10, 400), rng.randrange(50)), self._now_s())
        )
        self._errors += time.monotonic() - began_s > 1.0  # a decision that waited for the store
        rng.shuffle(self._open)
        while len(self._open) > MOST_OPEN * rng.random():
            decision = self._open.pop()
            if rng.random() < 0.9:
                replica.first_token(decision, self._now_s())
            replica.end(decision, self._now_s())

    async def _write(self) -> None:
        while True:
            self._file.with_suffix(".new").write_text(json.dumps(self._status()))
            os.replace(self._file.with_suffix(".new"), self._file)  # noqa: PTH105
            await asyncio.sleep(WRITE_EVERY_S)

    def _status(self) -> dict:
        own = [0] * len(self.replica.router.fleet.endpoints)
        addresses = [e.address for e in self.replica.router.fleet.endpoints]
        for decision in self._open:
            own[addresses.index(decision.address)] += 1
        return {
            "at_s": time.monotonic(),
            "resting": not self._busy,
            "own": own,
            "believed": self.replica.in_flight(self._now_s()),
            "state": str(self.sharer.state),
            "peers": self.sharer.n_peers,
            "learned": self.replica.router.learner.status().n_samples,
            "waited": self._errors,
        }


if __name__ == "__main__":
    asyncio.run(Agent(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])).run())
