"""Sessions as text: what a workload of virtual time asks, in words and in real time.

Equal block ids are equal words, so prompts share as much text as they share blocks, wherever a
session branched off. A prompt is one message, as each message's ends would part what is shared.
Where a turn repeats an earlier answer, it repeats words fixed beforehand in its place: so every
policy gets the same prompts.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Generic, TypeVar

import numpy as np

from lodestar_extproc.evaluation.chats import BYTES_PER_TOKEN, Arrival, ChatKind, text
from lodestar_extproc.simulator.arrival import BlockIds, VirtualRequest, Workload
from lodestar_extproc.simulator.defaults import BLOCK_TOKENS

LETTERS_PER_TOKEN = 1.82
"""Of generated words in the made model's tokenizer; measured."""
LETTERS_PER_BLOCK = BLOCK_TOKENS * LETTERS_PER_TOKEN
FIRST_ANSWER_ID = np.uint64(1 << 62)
"""Ids of prompts are random: none of them is one of so few."""
Told = TypeVar("Told", VirtualRequest, Arrival)
KNOWN_BLOCKS = 1 << 18
"""Whose words are kept: those of all prompts of a run."""


class Until:
    """A workload of which nothing is asked after *end_s*."""

    def __init__(self, workload: Workload, end_s: float) -> None:
        self._workload = workload
        self._end_s = end_s
        self.min_think_s = workload.min_think_s

    def __iter__(self) -> Iterator[VirtualRequest]:
        return (each for each in self._workload if each.at_s <= self._end_s)

    def next_turns(self, request: VirtualRequest, ended_at_s: float) -> list[VirtualRequest]:
        """Those of the workload that come in time."""
        following = self._workload.next_turns(request, ended_at_s)
        return [each for each in following if each.at_s <= self._end_s]


class _Retold(Generic[Told]):
    """A workload told otherwise; sessions and turns keep their numbers."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self.min_think_s = workload.min_think_s
        self._asked: dict[tuple[int, int], VirtualRequest] = {}

    def __iter__(self) -> Iterator[Told]:
        return map(self._tell, self._workload)

    def next_turns(self, told: Told, ended_at_s: float) -> list[Told]:
        """What is asked because *told* has ended."""
        asked = self._asked.pop((told.session, told.turn))
        return [self._tell(each) for each in self._workload.next_turns(asked, ended_at_s)]

    def _tell(self, request: VirtualRequest) -> Told:
        self._asked[request.session, request.turn] = request
        return self._retold(request)

    def _retold(self, request: VirtualRequest) -> Told:
        raise NotImplementedError


class Answered(_Retold[VirtualRequest]):
    """A workload whose answers, too, are kept by caches, as vLLM keeps them.

    No turn finds one there: what repeats an answer repeats other words than the engine's own.
    """

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload)
        self._next_id = FIRST_ANSWER_ID

    def _retold(self, request: VirtualRequest) -> VirtualRequest:
        of_prompt = request.block_ids[: request.prompt_tokens // BLOCK_TOKENS]
        n_blocks = (request.prompt_tokens + request.output_tokens) // BLOCK_TOKENS - len(of_prompt)
        of_answer = self._next_id + np.arange(n_blocks, dtype=np.uint64)
        self._next_id += np.uint64(n_blocks)
        return replace(request, block_ids=np.concatenate((of_prompt, of_answer)))


class Spoken(_Retold[Arrival]):
    """A workload as text."""

    def _retold(self, request: VirtualRequest) -> Arrival:
        said = prompt_text(request.block_ids, request.prompt_tokens)
        return Arrival(
            request.at_s,
            ChatKind.AGENT,
            (("user", said),),
            request.output_tokens,
            request.session,
            request.turn,
        )


def prompt_text(block_ids: BlockIds, prompt_tokens: int) -> str:
    """The words of a prompt of *prompt_tokens*; of ids beyond it nothing is said.

    >>> first, second = prompt_text([1, 2], 40), prompt_text([1, 2, 3], 52)
    >>> len(first), second.startswith(first[:58]), second.startswith(first)
    (73, True, False)
    """
    ids = [int(block_id) for block_id in block_ids[: prompt_tokens // BLOCK_TOKENS]]
    ends = [int(n * LETTERS_PER_BLOCK) for n in range(len(ids) + 1)]
    pieces = [_words(block_id)[: ends[n + 1] - ends[n]] for n, block_id in enumerate(ids)]
    rest = round(prompt_tokens * LETTERS_PER_TOKEN) - ends[-1]
    # What fills no block is nobody else's.
    pieces.append(text(random.Random(f"rest {ids[-1:]} {prompt_tokens}"), BLOCK_TOKENS)[:rest])
    return "".join(pieces)


@lru_cache(maxsize=KNOWN_BLOCKS)
def _words(block_id: int) -> str:
    return text(random.Random(block_id), -(-int(LETTERS_PER_BLOCK + 1) // BYTES_PER_TOKEN))
