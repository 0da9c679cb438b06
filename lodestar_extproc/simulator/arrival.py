"""VirtualRequest and Workload: what arrives at a cluster in virtual time, without any text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class VirtualRequest:
    """One prompt.

    Attributes:
        at_s: when it arrives.
        block_ids: one id a full block of 16 tokens; equal ids mean equal prefixes.
        session: its conversation; -1 for none. A session's next turn is asked for when this one
            has ended.
    """

    at_s: float
    block_ids: NDArray[np.uint64]
    prompt_tokens: int
    output_tokens: int
    session: int = -1


class Workload(Protocol):
    """Arrivals in order of time, and the turns that depend on answers.

    Attributes:
        has_turns: whether `next_turn` ever returns a request.
    """

    has_turns: bool

    def __iter__(self) -> Iterator[VirtualRequest]:
        """Arrivals that wait for nothing, by time."""
        ...

    def next_turn(self, request: VirtualRequest, ended_at_s: float) -> VirtualRequest | None:
        """What the session of *request* asks next, once it has ended; None for nothing."""
        ...
