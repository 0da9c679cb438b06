"""Threads: contexts of agents and sub-agents, whose turns follow each other's answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from lodestar_extproc.simulator.arrival import BlockIds, VirtualRequest
from lodestar_extproc.simulator.defaults import BLOCK_TOKENS


@dataclass(frozen=True, slots=True)
class AgentTurn:
    """One prompt of a thread and the pause before it.

    Attributes:
        context: which of the thread's contexts it is a beginning of.
    """

    prompt_tokens: int
    output_tokens: int
    think_s: float
    context: int


@dataclass(frozen=True, slots=True)
class Thread:
    """Turns of one agent or sub-agent.

    Attributes:
        contexts: block ids of the last and longest prompt of each context.
        started_at_s: None for a sub-agent, which starts when it is called.
        calls: numbers of the threads that start when a turn has ended, by turn.
        resumes: thread and turn that wait for the end of this one; None for none.
    """

    turns: tuple[AgentTurn, ...]
    contexts: tuple[BlockIds, ...]
    started_at_s: float | None = None
    calls: dict[int, tuple[int, ...]] = field(default_factory=dict)
    resumes: tuple[int, int] | None = None

    def numbered_from(self, first: int) -> Thread:
        """The same, where its session's threads are numbered from *first* on."""
        calls = {turn: tuple(first + n for n in called) for turn, called in self.calls.items()}
        resumes = None if self.resumes is None else (first + self.resumes[0], self.resumes[1])
        return replace(self, calls=calls, resumes=resumes)


class Threads:
    """A workload of threads; each has a session number of its own.

    Args:
        stretch: of all think times.
    """

    def __init__(self, threads: tuple[Thread, ...], stretch: float, min_think_s: float) -> None:
        self.threads = threads
        self.stretch = stretch
        self.min_think_s = min_think_s

    @classmethod
    def of(
        cls, sessions: Iterable[Sequence[Thread]], stretch: float, min_think_s: float
    ) -> Threads:
        """All threads of *sessions*, numbered through."""
        threads: list[Thread] = []
        for session in sessions:
            first = len(threads)
            threads += [thread.numbered_from(first) for thread in session]
        return cls(tuple(threads), stretch, min_think_s)

    def __iter__(self) -> Iterator[VirtualRequest]:
        started = [
            (t.started_at_s, n) for n, t in enumerate(self.threads) if t.started_at_s is not None
        ]
        for at_s, number in sorted(started):
            yield self._request(number, 0, at_s)

    def next_turns(self, request: VirtualRequest, ended_at_s: float) -> tuple[VirtualRequest, ...]:
        """The sub-agents it called, or the next turn, or that of an agent who waited for it."""
        number, turn = request.session, request.turn
        thread = self.threads[number]
        if turn in thread.calls:
            return tuple(self._follow(called, 0, ended_at_s) for called in thread.calls[turn])
        if turn + 1 < len(thread.turns):
            return (self._follow(number, turn + 1, ended_at_s),)
        if thread.resumes is None:
            return ()
        return (self._follow(*thread.resumes, ended_at_s),)

    def _follow(self, number: int, turn: int, ended_at_s: float) -> VirtualRequest:
        think_s = max(self.min_think_s, self.stretch * self.threads[number].turns[turn].think_s)
        return self._request(number, turn, ended_at_s + think_s)

    def _request(self, number: int, turn: int, at_s: float) -> VirtualRequest:
        thread = self.threads[number]
        asked = thread.turns[turn]
        return VirtualRequest(
            at_s=at_s,
            block_ids=thread.contexts[asked.context][: asked.prompt_tokens // BLOCK_TOKENS],
            prompt_tokens=asked.prompt_tokens,
            output_tokens=asked.output_tokens,
            session=number,
            turn=turn,
        )
