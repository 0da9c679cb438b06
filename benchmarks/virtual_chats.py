"""VirtualChats: the load of `chats.py` for a cluster in virtual time, block for block.

What an HTTP run sends as text arrives here as the ids and lengths that a simulated server makes of
that text, so the two runs can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from lodestar_extproc.evaluation.chats import Chats
from lodestar_extproc.evaluation.load import request_body
from lodestar_extproc.simulator.api import parse_call
from lodestar_extproc.simulator.arrival import VirtualRequest
from lodestar_extproc.simulator.defaults import DEFAULT_MODEL

LONGEST_TOKENS = 30_000  # the longest document and its questions fit


@dataclass(frozen=True, slots=True)
class VirtualChats:
    """A Workload; each iteration renders all text anew, some milliseconds a request.

    Raises, when iterated:
        ApiError: a request is longer than LONGEST_TOKENS.
    """

    chats: Chats
    min_think_s: float = math.inf

    def __iter__(self) -> Iterator[VirtualRequest]:
        for arrival in self.chats:
            raw = request_body(arrival, DEFAULT_MODEL)
            call = parse_call(raw, chat=True, model=DEFAULT_MODEL, longest_tokens=LONGEST_TOKENS)
            yield VirtualRequest(
                at_s=arrival.at_s,
                block_ids=call.block_ids(call.answer()),
                prompt_tokens=call.prompt_tokens,
                output_tokens=call.max_tokens,
            )

    def next_turns(
        self,
        request: VirtualRequest,  # noqa: ARG002
        ended_at_s: float,  # noqa: ARG002
    ) -> tuple[VirtualRequest, ...]:
        """Nothing: turns come at their times, whatever the answers."""
        return ()
