"""Agentic: dialogues of a coding agent, whose every turn repeats all that came before.

Generated to the statistics of the public dialogues of callanjfox/kv-cache-tester (tokens divided by
8, answers by 2, dialogues ended at 20,000 tokens or 25 turns): prompts of 9,805 tokens on average,
of which 93 % came before, answers of 128 tokens in the median and 252 on average, half of the
dialogues under one system prompt with its tools, a think time of 10 s in the median.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lodestar_extproc.evaluation.workloads.blocks import FreshBlocks
from lodestar_extproc.simulator.arrival import BlockIds, VirtualRequest
from lodestar_extproc.simulator.defaults import BLOCK_TOKENS

MAX_TURNS = 25  # of a dialogue; the recorded ones go on, and are cut there
SHORT_RATIO = 0.3
"""Dialogues that end sooner, after any number of turns."""
# Read off the recorded dialogues, scaled as above; longer think times are cut to 30 s.
MAX_PROMPT_TOKENS = 20_000
SYSTEM_TOKENS = 2_800
SHARED_RATIO = 0.5
MIN_THINK_S, MAX_THINK_S = 0.2, 30.0
MAX_OUTPUT_TOKENS = 6_000


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Of a median and a spread, the standard deviation of the logarithm."""

    median: float
    spread: float

    def draw(self, rng: np.random.Generator) -> float:
        """One value."""
        return self.median * math.exp(self.spread * float(rng.standard_normal()))


FIRST_QUESTION_TOKENS = LogNormal(1800.0, 0.7)
NEW_TOKENS = LogNormal(265.0, 1.15)
OUTPUT_TOKENS = LogNormal(128.0, 1.18)
THINK_S = LogNormal(10.0, 2.0)
PACE_SPREAD = 0.25
"""Dialogues grow at different paces: log-normal spread of all of one's new tokens."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One prompt of a dialogue and the pause before it."""

    prompt_tokens: int
    output_tokens: int
    think_s: float


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Turns, each of which begins with all of the one before.

    Attributes:
        block_ids: of the last and longest prompt; the others' are its beginnings.
    """

    started_at_s: float
    turns: tuple[Turn, ...]
    block_ids: BlockIds

    def request(self, session: int, turn: int, at_s: float) -> VirtualRequest:
        """Turn number *turn*, as asked at *at_s*."""
        asked = self.turns[turn]
        return VirtualRequest(
            at_s=at_s,
            block_ids=self.block_ids[: asked.prompt_tokens // BLOCK_TOKENS],
            prompt_tokens=asked.prompt_tokens,
            output_tokens=asked.output_tokens,
            session=session,
            turn=turn,
        )


class Dialogues:
    """Dialogues that start at their times; a turn follows the end of the one before."""

    def __init__(self, dialogues: tuple[Dialogue, ...], min_think_s: float) -> None:
        self.dialogues = dialogues
        self.min_think_s = min_think_s

    def __iter__(self) -> Iterator[VirtualRequest]:
        for session, dialogue in enumerate(self.dialogues):
            yield dialogue.request(session, 0, dialogue.started_at_s)

    def next_turns(self, request: VirtualRequest, ended_at_s: float) -> tuple[VirtualRequest, ...]:
        """What the agent asks next, after it has thought."""
        dialogue, turn = self.dialogues[request.session], request.turn + 1
        if turn == len(dialogue.turns):
            return ()
        return (dialogue.request(request.session, turn, ended_at_s + dialogue.turns[turn].think_s),)


@dataclass(frozen=True, slots=True)
class Agentic:
    """Dialogues that start as a Poisson process."""

    def generate(self, rate_per_s: float, seed: int, n_requests: int) -> Dialogues:
        """Enough dialogues that *n_requests* arrive at *rate_per_s* turns a second."""
        rng = np.random.default_rng(seed)
        fresh = FreshBlocks(seed)
        system = fresh.take(SYSTEM_TOKENS)
        # Twice as many as end within the run, for those that are still going on then.
        n_dialogues = n_requests // 10 + 50
        drafts = [_dialogue(rng, fresh, system) for _ in range(n_dialogues)]
        mean_turns = float(np.mean([len(turns) for turns, _ in drafts]))
        at_s, dialogues = 0.0, []
        for turns, blocks in drafts:
            at_s += float(rng.exponential(mean_turns / rate_per_s))
            dialogues.append(Dialogue(at_s, turns, blocks))
        return Dialogues(tuple(dialogues), MIN_THINK_S)


def _dialogue(
    rng: np.random.Generator, fresh: FreshBlocks, system: BlockIds
) -> tuple[tuple[Turn, ...], BlockIds]:
    own_system = fresh.take(SYSTEM_TOKENS) if rng.random() >= SHARED_RATIO else system
    pace = math.exp(PACE_SPREAD * float(rng.standard_normal()))
    tokens = SYSTEM_TOKENS + FIRST_QUESTION_TOKENS.draw(rng)
    turns: list[Turn] = []
    left = MAX_TURNS if rng.random() >= SHORT_RATIO else int(rng.integers(1, MAX_TURNS))
    while len(turns) < left and tokens <= MAX_PROMPT_TOKENS:
        think_s = min(max(THINK_S.draw(rng), MIN_THINK_S), MAX_THINK_S)
        output = min(max(2, int(OUTPUT_TOKENS.draw(rng))), MAX_OUTPUT_TOKENS)
        turns.append(Turn(int(tokens), output, think_s))
        tokens += pace * NEW_TOKENS.draw(rng)
    if not turns:
        return _dialogue(rng, fresh, system)
    rest = fresh.take(turns[-1].prompt_tokens - BLOCK_TOKENS * len(own_system))
    return tuple(turns), np.concatenate([own_system, rest])
