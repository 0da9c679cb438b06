"""RequestRecord: what became of one virtual request."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lodestar_extproc.decision import Reason
from lodestar_extproc.simulator.arrival import BlockIds

NEVER = float("nan")
NO_BLOCKS: BlockIds = np.empty(0, dtype=np.uint64)


@dataclass(slots=True)
class RequestRecord:
    """What became of one request; times in seconds, NaN where they never came.

    Attributes:
        endpoint: number of the machine that took it; -1 for none.
        predicted_ttft_s: for the endpoint chosen; NaN where nothing was predicted.
        ttft_s: from arrival to the first token, at the client.
        e2e_s: from arrival to the end, which may be that the client left.
        failed: refused, broken off, or left by its client.
        session: its conversation; -1 for none.
        block_ids: of its full blocks.
    """

    arrived_s: float
    prompt_tokens: int
    output_tokens: int
    reason: Reason
    endpoint: int = -1
    predicted_ttft_s: float = NEVER
    ttft_s: float = NEVER
    e2e_s: float = NEVER
    cached_tokens: int = 0
    failed: bool = False
    session: int = -1
    block_ids: BlockIds = field(default_factory=lambda: NO_BLOCKS, repr=False, compare=False)

    @property
    def tpot_s(self) -> float:
        """Time per output token after the first; NaN without a second."""
        if self.output_tokens < 2:
            return NEVER
        return (self.e2e_s - self.ttft_s) / (self.output_tokens - 1)
