"""Journals written by the real router and journal, for tests of what reads them."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from builders import a_prompt
from lodestar_extproc.completion import Outcome
from lodestar_extproc.decision import Decision
from lodestar_extproc.journal.journal import Journal
from lodestar_extproc.journal.journal_file import JournalFile
from metrics_world import World

TTFT_S = (0.1, 0.2, 0.4)


class Listener:
    """Keeps the decisions as they were made."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    def decided(self, decision) -> None:
        self.decisions.append(decision)

    def first_token(self, decision, first_token) -> None:
        pass

    def ended(self, request) -> None:
        pass


class Recording:
    """A world of three endpoints, each with its own TTFT, that writes a journal."""

    def __init__(self, path: Path, **settings) -> None:
        self.path = path
        self.listener = Listener()
        self._journal = Journal(
            JournalFile(path, clock=lambda: 0.0),
            count=lambda *_: None,
            wall_clock=lambda: self.world.now_s,
            max_waiting=10**6,
        )
        self.world = World(3, listeners=[self._journal, self.listener], **settings)

    def serve(self, n: int) -> None:
        """Requests one after the other; prompts repeat, so that caches count."""
        rng = random.Random(1)
        for _ in range(n):
            decision = self.world.decide(prompt=a_prompt(400, rng.randrange(9)))
            self.world.first_token(decision, TTFT_S[decision.chosen])
            self.world.end(decision)
            self.world.now_s += 1.0

    def end(self, outcome: Outcome = Outcome.SERVED, **changes) -> Decision:
        """One more request, without a first token."""
        decision = self.world.decide()
        self.world.end(decision, outcome, **changes)
        return decision

    def write(self) -> Path:
        async def run() -> None:
            async with self._journal.running():
                pass

        asyncio.run(run())
        return self.path
