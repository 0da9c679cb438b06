"""Mooncake traces: prompts known by hash ids of 512 tokens, rescaled to what one card can hold.

Public at https://github.com/kvcache-ai/Mooncake under FAST25-release/traces (Apache-2.0). Their
prompts are of 12,000 tokens on average, too long for the caches of small cards, and their
timestamps stand on ticks of 3 s: so a hash id counts for fewer tokens, and arrivals are drawn anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from lodestar_extproc.evaluation.workloads.arrivals import OpenLoop, poisson
from lodestar_extproc.evaluation.workloads.blocks import of_hash_ids
from lodestar_extproc.simulator.arrival import VirtualRequest

TRACE_TOKENS_PER_HASH = 512  # by the traces' own description
# Prompts are cut to what the smallest cache of the benchmark can hold several of; answers are
# halved, so that a card serves as many of them as its prefill allows.
MIN_PROMPT_TOKENS = 16
MAX_PROMPT_TOKENS = 10_000
MIN_OUTPUT_TOKENS = 2
OUTPUT_RATIO = 0.5
LAP = 1 << 40
"""Added to the hash ids of each further lap, so that it shares nothing with the one before."""


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One line of a trace."""

    prompt_tokens: int
    output_tokens: int
    hash_ids: NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Mooncake:
    """A trace at *tokens_per_hash* instead of 512 tokens a hash id, as a Poisson process."""

    rows: tuple[TraceRow, ...]
    tokens_per_hash: int

    def generate(self, rate_per_s: float, seed: int, n_requests: int) -> OpenLoop:
        """Start at a row drawn by *seed* and go round."""
        rng = np.random.default_rng(seed)
        start = int(rng.integers(len(self.rows)))
        return poisson(self._prompts(start, n_requests), rate_per_s, rng)

    def _prompts(self, start: int, n_requests: int) -> Iterator[VirtualRequest]:
        for i in range(n_requests):
            lap, place = divmod(start + i, len(self.rows))
            row = self.rows[place]
            scaled = round(row.prompt_tokens * self.tokens_per_hash / TRACE_TOKENS_PER_HASH)
            prompt_tokens = min(max(scaled, MIN_PROMPT_TOKENS), MAX_PROMPT_TOKENS)
            yield VirtualRequest(
                at_s=0.0,
                block_ids=of_hash_ids(
                    row.hash_ids, self.tokens_per_hash, prompt_tokens, salt=lap * LAP
                ),
                prompt_tokens=prompt_tokens,
                output_tokens=max(MIN_OUTPUT_TOKENS, round(row.output_tokens * OUTPUT_RATIO)),
            )


def read_mooncake(path: Path, tokens_per_hash: int) -> Mooncake:
    """The trace at *path*, JSON lines with input_length, output_length and hash_ids.

    Raises:
        ValueError: a line is not such a request, or there is none.
    """
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            entry = orjson.loads(line)
            rows.append(
                TraceRow(
                    int(entry["input_length"]),
                    int(entry["output_length"]),
                    np.array(entry["hash_ids"] or [0], dtype=np.uint64),
                )
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"{path}, line {number}: wants input_length, output_length, hash_ids: {error}"
            ) from None
    if not rows:
        raise ValueError(f"{path} has no requests")
    return Mooncake(tuple(rows), tokens_per_hash)
