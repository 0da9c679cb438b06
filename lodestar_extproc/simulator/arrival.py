"""VirtualRequest and Workload: what arrives at a cluster in virtual time, without any text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

BlockIds = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class VirtualRequest:
    """One prompt.

    Attributes:
        at_s: when it arrives.
        block_ids: one id a full block of 16 tokens; equal ids mean equal prefixes. Ids beyond the
            prompt's are those of the output, which the engine's next turn may hit.
        session: its conversation; -1 for none.
        turn: which turn of the conversation, from 0.
    """

    at_s: float
    block_ids: BlockIds
    prompt_tokens: int
    output_tokens: int
    session: int = -1
    turn: int = 0


class Workload(Protocol):
    """Arrivals in order of time, and the turns that depend on answers.

    Iterating twice gives the same requests twice, so that policies can be compared on them.

    Attributes:
        min_think_s: no turn follows the end of its predecessor sooner; inf where none ever does.
    """

    min_think_s: float

    def __iter__(self) -> Iterator[VirtualRequest]:
        """Arrivals that wait for nothing, by time."""
        ...

    def next_turns(self, request: VirtualRequest, ended_at_s: float) -> Sequence[VirtualRequest]:
        """What is asked because *request* has ended: its session's next turn, or those of several.

        They come at the same time or later, no sooner than after `min_think_s`.
        """
        ...
