"""What replicas believe, beside the truth, while they and the store are killed and paused.

Real processes and a real Redis; the order of faults follows from a seed. After the last fault every
replica's count of requests in flight has to become the sum of what those that live have.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from child_process import ChildProcess
from redis_process import RedisProcess, needs_redis
from waiting import until

pytest.importorskip("redis", reason="no client of Redis: pip install 'lodestar-extproc[redis]'")
pytestmark = needs_redis

AGENT = Path(__file__).parents[1] / "support" / "history_agent.py"
FAULTS = ("kill", "pause", "pause_store", "kill_store", "cut_store", "jump", "pause_two")
SETTLED_WITHIN_S = 1.0
"""On a quiet machine; a busy one is late itself, so that the limit is checked by the slow run."""


class AgentProcess(ChildProcess):
    def __init__(self, url: str, number: int, folder: Path) -> None:
        self._status = folder / f"agent{number}.json"
        command = [sys.executable, str(AGENT), url, str(number), str(self._status)]
        super().__init__(f"agent{number}", command, folder)

    def status(self) -> dict:
        self.check_alive()
        return json.loads(self._status.read_text()) if self._status.exists() else {"state": ""}

    def rest(self) -> None:
        self._send(signal.SIGUSR1)

    def jump(self) -> None:
        """Have its clock step ahead."""
        self._send(signal.SIGUSR2)


class History:
    """Three replicas and a store, and what is done to them."""

    def __init__(self, redis: RedisProcess, folder: Path, stack: ExitStack, seed: int) -> None:
        self.redis = redis
        self.agents: list[AgentProcess] = []
        self.done: list[str] = []
        self._folder = folder
        self._stack = stack
        self._rng = random.Random(seed)
        self._n_started = 0

    async def start(self, n: int = 3) -> None:
        for _ in range(n):
            self._join()
        await until(self._all_shared)

    async def fault(self) -> None:
        name = self._rng.choice(FAULTS)
        agent = self._rng.choice(self.agents)
        for_s = self._rng.uniform(0.1, 1.0)
        self.done.append(f"{name} {for_s:.2f}")
        match name:
            case "kill":
                self.agents.remove(agent)
                agent.kill()
                self._join()
            case "pause":
                await self._frozen(agent, for_s)
            case "pause_store":
                await self._frozen(self.redis, for_s)
            case "kill_store":
                self.redis.kill()
                await asyncio.sleep(for_s)
                self.redis.start()
                await self.redis.ready()
            case "jump":
                await until(lambda: agent.status()["state"])  # it may just have been started
                agent.jump()
            case "pause_two":
                other = next(each for each in self.agents if each is not agent)
                agent.freeze()
                await self._frozen(other, for_s)
                agent.thaw()
            case "cut_store":
                self.redis.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await asyncio.sleep(self._rng.uniform(0.05, 0.4))

    async def settled(self) -> float:
        """Seconds until all that all believe is true, from when all share and none works."""
        await until(self._all_shared)
        for agent in self.agents:
            agent.rest()
        await until(lambda: all(agent.status()["resting"] for agent in self.agents))
        began_s = time.monotonic()
        await until(self._all_true)
        return time.monotonic() - began_s

    def _join(self) -> None:
        self._n_started += 1
        agent = AgentProcess(self.redis.url, self._n_started, self._folder)
        self._stack.enter_context(agent)
        self.agents.append(agent)

    async def _frozen(self, process: ChildProcess, for_s: float) -> None:
        process.freeze()
        await asyncio.sleep(for_s)
        process.thaw()

    def _all_shared(self) -> bool:
        statuses = [agent.status() for agent in self.agents]
        others = len(self.agents) - 1
        return all(s["state"] == "shared" and s["peers"] == others for s in statuses)

    def _all_true(self) -> bool:
        statuses = [agent.status() for agent in self.agents]
        truth = [float(sum(column)) for column in zip(*(s["own"] for s in statuses), strict=True)]
        return all(s["believed"] == truth for s in statuses)


async def told(tmp_path: Path, seed: int, n_faults: int) -> tuple[float, History]:
    with ExitStack() as stack:
        redis = stack.enter_context(RedisProcess(tmp_path))
        await redis.ready()
        history = History(redis, tmp_path, stack, seed)
        await history.start()
        for _ in range(n_faults):
            await history.fault()
        settled_s = await history.settled()
        statuses = [agent.status() for agent in history.agents]
        print(seed, history.done, f"true after {settled_s:.2f} s", statuses)
        assert not any(status["waited"] for status in statuses)
        assert all(status["learned"] > 0 for status in statuses)
        return settled_s, history


@pytest.mark.long
async def test_all_counts_are_true_after_faults_of_replicas_and_of_the_store(tmp_path):
    await told(tmp_path, seed=1, n_faults=6)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(2, 7))
async def test_all_counts_are_true_within_a_second_after_many_faults(tmp_path, seed):
    settled_s, _ = await told(tmp_path, seed, n_faults=40)

    assert settled_s < SETTLED_WITHIN_S
