"""AgentSessions: coding agents whose sessions are long, grow turn by turn, and call sub-agents.

Drawn to published statistics. 219 production sessions of llm-d's blog of 22 July 2026: 107 turns in
the median, prompts of 195,000 tokens in the median and 849,000 at P99, answers of 317 tokens, 2 s
between turns in the median and 24 s at P90; 96 % of the turns reuse 90 % of their prompt and more,
and an endless cache would hold 94 % of all tokens. Sessions recorded with windows of 200,000 tokens
(callanjfox/kv-cache-tester) are smaller: prompts of 110,000 tokens on average, under five lists of
tools of some 10,000 tokens.

A turn asks for one tool or for several at once, whose results lengthen the next prompt. A context
that outgrows its window is summed up, and now and then one is rewritten, as when old results are
cleared from it: what follows shares only the tools and the project with what came before. Now and
then a turn hands work to sub-agents that run side by side, each on a context of its own that begins
with its parent's tools and project; the parent goes on when the one with the most turns has ended.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lodestar_extproc.endpoint import FloatArray
from lodestar_extproc.evaluation.workloads.agent_threads import AgentTurn, Thread, Threads
from lodestar_extproc.evaluation.workloads.agentic import LogNormal
from lodestar_extproc.evaluation.workloads.blocks import FreshBlocks
from lodestar_extproc.simulator.arrival import BlockIds
from lodestar_extproc.simulator.defaults import BLOCK_TOKENS

TURNS = LogNormal(107.0, 0.9)
"""The median is the blog's; the spread makes a tenth of the sessions longer than 340 turns."""
MAX_TURNS = 1_500  # a bound on what one session can take of a run
TOOL_GROUPS = 5  # of the recorded sessions
TOOLS_TOKENS = 9_600  # the same, on average
PROJECT_TOKENS = LogNormal(25_000.0, 0.6)
SUMMARY_SHARE = 0.2
"""Of the window: what is left of a conversation that was summed up."""
REWRITES_RATIO = 0.035  # chosen for the reuse below
LEAST_KEPT = 0.7
"""Turns before which the context is rewritten, and how much of its length is left at least.

With this an endless cache holds 96 % of all tokens, and 92 % of the turns reuse 90 % and more.
"""
# Set by judgement.
SPAWNS_RATIO = 0.0125
MOST_SUB_AGENTS = 3
SUB_AGENT_TURNS = 8.0
"""Turns that hand work to sub-agents, to how many at most, and how many turns each takes.

No publication says; so about a fifth of the requests are sub-agents'.
"""
TASK_TOKENS = LogNormal(3_000.0, 0.7)
PARALLEL_RATIO = 0.3  # set by judgement
MOST_PARALLEL = 4
"""Turns that ask for several tools at once, and for how many at most."""
PACE_SPREAD = 0.3
"""Sessions grow at different paces: log-normal spread of all of one's new tokens."""
THINK_S = LogNormal(2.0, 1.94)
"""2 s in the median and 24 s at P90: from an answer to the next turn."""
MAX_THINK_S = 300.0  # a person who went away for longer begins anew
MIN_THINK_S = 0.05  # a tool that answers at once
OUTPUT_TOKENS = LogNormal(317.0, 0.9)
MAX_OUTPUT_TOKENS = 8_000  # a limit that agents commonly set
ANSWER_S = 1.7
"""What an answer takes, about: 95 tokens of 10 to 20 ms; for the number of sessions at a time."""
FEWEST_SESSIONS = 200  # drawn from, so that a run is of many lengths
DRAWN_FROM = 6.0
"""So many times as many are drawn as are under way at the beginning, to choose these from."""


@dataclass(frozen=True, slots=True)
class Population:
    """How large sessions grow, at full size.

    Attributes:
        window_tokens: that a context may hold.
        new_tokens: the result of one tool.
    """

    window_tokens: int
    new_tokens: LogNormal


RECORDED = Population(200_000, LogNormal(750.0, 1.0))
PRODUCTION = Population(1_000_000, LogNormal(1_000.0, 1.0))
"""What a tool adds is chosen so that prompts are as long as published."""


@dataclass(frozen=True, slots=True)
class AgentSessions:
    """Sessions that start as a Poisson process, beside those that are under way at the beginning.

    Attributes:
        live_sessions: how many there are at a time; think times are stretched or shortened, all
            alike, until the rate asked for is theirs. At a rate too high for that there are more.
        scale: by which prompts are shorter than at full size.
        output_scale: the same for answers.
    """

    live_sessions: float = 40.0
    scale: float = 24.0
    output_scale: float = 5.0
    population: Population = RECORDED

    def generate(self, rate_per_s: float, seed: int, n_requests: int) -> Threads:
        """Enough sessions that *n_requests* arrive at *rate_per_s*."""
        draw = _Draw(self, seed)
        drafts = [draw.session() for _ in range(max(FEWEST_SESSIONS, n_requests // 25))]
        others = [draw.session() for _ in range(round(DRAWN_FROM * self.live_sessions))]
        mean_turns = float(_n_turns(drafts).mean())
        # Sub-agents side by side ask more in a session's time than a thread alone.
        side_by_side = mean_turns / float(np.mean([_turns_in_a_row(s) for s in drafts]))
        cycle_s = self.live_sessions * side_by_side / rate_per_s
        think_s = float(np.mean([turn.think_s for s in drafts for t in s for turn in t.turns]))
        stretch = max(cycle_s - ANSWER_S, MIN_THINK_S) / think_s
        cycle_s = ANSWER_S + stretch * think_s
        n_live = round(rate_per_s * cycle_s / side_by_side)
        placed = [
            _under_way(session, float(draw.rng.uniform(0.0, cycle_s)), draw.rng)
            for session in _met(others, n_live, draw.rng)
        ]
        at_s = 0.0
        for session in drafts:
            at_s += float(draw.rng.exponential(mean_turns / rate_per_s))
            placed.append([replace(session[0], started_at_s=at_s), *session[1:]])
        return Threads.of(placed, stretch, MIN_THINK_S)


class _Draw:
    """Draws sessions, whose first thread is the agent's own and the others its sub-agents'."""

    def __init__(self, source: AgentSessions, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self._source = source
        self._fresh = FreshBlocks(seed)
        self._tools = [self._fresh.take(self._scaled(TOOLS_TOKENS)) for _ in range(TOOL_GROUPS)]

    def _scaled(self, tokens: float) -> int:
        return max(BLOCK_TOKENS, round(tokens / self._source.scale))

    def session(self) -> list[Thread]:
        """One with its sub-agents; when it starts is left open."""
        rng = self.rng
        tools = self._tools[int(rng.integers(TOOL_GROUPS))]
        project = self._fresh.take(self._scaled(PROJECT_TOKENS.draw(rng)))
        common = np.concatenate([tools, project])
        pace = math.exp(PACE_SPREAD * float(rng.standard_normal()))
        n_turns = int(min(max(TURNS.draw(rng), 1.0), MAX_TURNS))
        main = self._thread(common, n_turns, pace)
        threads = [main]
        for turn in range(n_turns - 1):
            if rng.random() < SPAWNS_RATIO:
                self._spawn(threads, turn, common, pace)
        return threads

    def _spawn(self, threads: list[Thread], turn: int, common: BlockIds, pace: float) -> None:
        """Sub-agents of the first of *threads*, after its turn number *turn*."""
        n = int(self.rng.integers(1, MOST_SUB_AGENTS + 1))
        lengths = self.rng.geometric(1.0 / SUB_AGENT_TURNS, n).tolist()
        first = len(threads)
        threads += [self._thread(common, length, pace) for length in lengths]
        last = first + lengths.index(max(lengths))
        threads[last] = replace(threads[last], resumes=(0, turn + 1))
        threads[0].calls[turn] = tuple(range(first, first + n))

    def _thread(self, common: BlockIds, n_turns: int, pace: float) -> Thread:
        """A context that grows from *common* on, and is summed up when its window is full."""
        window = self._scaled(self._source.population.window_tokens)
        base = BLOCK_TOKENS * len(common)
        tokens = base + self._scaled(TASK_TOKENS.draw(self.rng))
        turns: list[AgentTurn] = []
        lengths: list[int] = [0]
        for _ in range(n_turns):
            tokens += self._new_tokens(pace)
            if tokens > window:
                tokens = base + round(SUMMARY_SHARE * window)
                lengths.append(0)
            elif self.rng.random() < REWRITES_RATIO:
                tokens = base + round((tokens - base) * self.rng.uniform(LEAST_KEPT, 1.0))
                lengths.append(0)
            lengths[-1] = tokens
            turns.append(
                AgentTurn(tokens, self._output_tokens(), self._think_s(), len(lengths) - 1)
            )
        contexts = tuple(
            np.concatenate([common, self._fresh.take(length - base)]) for length in lengths
        )
        return Thread(tuple(turns), contexts)

    def _new_tokens(self, pace: float) -> int:
        n_tools = 1
        if self.rng.random() < PARALLEL_RATIO:
            n_tools = int(self.rng.integers(2, MOST_PARALLEL + 1))
        drawn = sum(self._source.population.new_tokens.draw(self.rng) for _ in range(n_tools))
        return max(1, round(pace * drawn / self._source.scale))

    def _output_tokens(self) -> int:
        drawn = min(OUTPUT_TOKENS.draw(self.rng), MAX_OUTPUT_TOKENS)
        return max(2, round(drawn / self._source.output_scale))

    def _think_s(self) -> float:
        return min(THINK_S.draw(self.rng), MAX_THINK_S)


def _n_turns(sessions: Sequence[Sequence[Thread]]) -> FloatArray:
    """Of each session, its sub-agents' among them, [n]."""
    return np.array([sum(len(t.turns) for t in session) for session in sessions], dtype=float)


def _turns_in_a_row(session: Sequence[Thread]) -> int:
    """Turns that wait for one another: the agent's, and those of sub-agents that it waits for."""
    return sum(len(t.turns) for n, t in enumerate(session) if n == 0 or t.resumes is not None)


def _met(
    sessions: Sequence[list[Thread]], n: int, rng: np.random.Generator
) -> Iterator[list[Thread]]:
    """*n* of *sessions*, or all: who is met at a moment is met the likelier the longer he stays."""
    n_turns = _n_turns(sessions)
    chances = n_turns / n_turns.sum()
    for number in rng.choice(len(sessions), min(n, len(sessions)), replace=False, p=chances):
        yield sessions[int(number)]


def _under_way(session: Sequence[Thread], at_s: float, rng: np.random.Generator) -> list[Thread]:
    """*session*, of which only what follows some turn of the agent's own is still to come."""
    main = session[0]
    gone = int(rng.integers(len(main.turns)))
    calls = {turn - gone: called for turn, called in main.calls.items() if turn >= gone}
    rest = replace(main, turns=main.turns[gone:], calls=calls, started_at_s=at_s)
    others: list[Thread] = []
    for thread in session[1:]:
        resumes = thread.resumes
        others.append(
            thread if resumes is None else replace(thread, resumes=(0, resumes[1] - gone))
        )
    return [rest, *others]
