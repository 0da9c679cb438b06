"""Azure traces: real lengths and bursts of a code assistant; the sharing of prefixes is imposed.

Public at https://github.com/Azure/AzurePublicDataset as data/AzureLLMInferenceTrace_code.csv (2023,
CC-BY 4.0). The trace tells when requests came and how long they were, not what they shared.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from lodestar_extproc.endpoint import FloatArray
from lodestar_extproc.evaluation.workloads.arrivals import OpenLoop
from lodestar_extproc.evaluation.workloads.blocks import FreshBlocks
from lodestar_extproc.simulator.arrival import BlockIds, VirtualRequest
from lodestar_extproc.simulator.defaults import BLOCK_TOKENS

LONGEST_GAP_S = 2.0  # the nights of the trace are no load
MEAN_EXTRA_GAP_S = 0.01  # parts requests that the trace gives one time stamp
# The trace tells nothing of prefixes: 30 % of a prompt is shared, by ten requests on average, in
# the manner of the "prefix30" workload.
LIVE_PREFIXES = 60
NEW_PREFIX_RATIO = 0.1
PREFIX_SHARE, PREFIX_SHARE_SPREAD, MIN_PREFIX_SHARE = 0.3, 0.15, 0.05
PREFIXES_COMPARED = 4


@dataclass(frozen=True, slots=True)
class Azure:
    """Rows of the trace: gaps before them in seconds, prompt and output tokens, each [n]."""

    gaps_s: FloatArray
    prompt_tokens: tuple[int, ...]
    output_tokens: tuple[int, ...]

    def generate(self, rate_per_s: float, seed: int, n_requests: int) -> OpenLoop:
        """Start at a row drawn by *seed* and go round; the gaps keep their shape."""
        rng = np.random.default_rng(seed)
        rows = (int(rng.integers(len(self.gaps_s))) + np.arange(n_requests)) % len(self.gaps_s)
        gaps_s = np.minimum(self.gaps_s[rows], LONGEST_GAP_S)
        gaps_s = gaps_s + rng.exponential(MEAN_EXTRA_GAP_S, n_requests)
        times_s = np.cumsum(gaps_s / (gaps_s.mean() * rate_per_s))
        prompts = self._prompts(rows.tolist(), rng, FreshBlocks(seed))
        pairs = zip(prompts, times_s.tolist(), strict=True)
        return OpenLoop(replace(prompt, at_s=at_s) for prompt, at_s in pairs)

    def _prompts(
        self, rows: list[int], rng: np.random.Generator, fresh: FreshBlocks
    ) -> Iterator[VirtualRequest]:
        live: deque[tuple[int, BlockIds]] = deque(maxlen=LIVE_PREFIXES)
        for row in rows:
            tokens = self.prompt_tokens[row]
            if len(live) < LIVE_PREFIXES or rng.random() < NEW_PREFIX_RATIO:
                share = max(MIN_PREFIX_SHARE, float(rng.normal(PREFIX_SHARE, PREFIX_SHARE_SPREAD)))
                live.append((tokens, fresh.take(int(tokens * min(share, 1.0)))))
                prefix = live[-1][1]
            else:
                some = [live[int(i)] for i in rng.integers(len(live), size=PREFIXES_COMPARED)]
                prefix = min(some, key=lambda entry: abs(entry[0] - tokens))[1]
            shared = prefix[: tokens // BLOCK_TOKENS]
            own = fresh.take(tokens - BLOCK_TOKENS * len(shared))
            blocks = np.concatenate([shared, own])
            yield VirtualRequest(0.0, blocks, tokens, self.output_tokens[row])


def read_azure(path: Path) -> Azure:
    """The trace at *path*, CSV with TIMESTAMP, ContextTokens and GeneratedTokens.

    Raises:
        ValueError: it is not such a file, or holds fewer than two requests.
    """
    times, prompts, outputs = [], [], []
    with path.open(newline="") as file:
        try:
            for row in csv.DictReader(file):
                # Seven digits of a second, one more than datetime reads.
                times.append(datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp())
                prompts.append(max(1, int(row["ContextTokens"])))
                outputs.append(max(1, int(row["GeneratedTokens"])))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: wants TIMESTAMP, ContextTokens, GeneratedTokens: {error}"
            ) from None
    if len(times) < 2:
        raise ValueError(f"{path} has fewer than two requests")
    gaps_s = np.diff(times, prepend=times[0])
    return Azure(np.maximum(gaps_s, 0.0), tuple(prompts), tuple(outputs))
