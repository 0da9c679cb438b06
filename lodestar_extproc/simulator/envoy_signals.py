"""EnvoySignals: what `envoy/envoy.yaml` lets a router see of virtual requests, and how late."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from lodestar_extproc.request import BLOCK_BYTES, InferenceRequest, RequestKind
from lodestar_extproc.simulator.arrival import VirtualRequest
from lodestar_extproc.simulator.defaults import BLOCK_TOKENS


@dataclass(frozen=True, slots=True)
class EnvoySignals:
    """What Envoy delivers, how late, and how wrong.

    Attributes:
        first_token_delay_s: from the engine's first token to ours.
        end_delay_min_s, end_delay_max_s: from the end of an answer to its access log entry.
        scrape_interval_s: between two scrapes of every engine; inf for none.
        token_estimate_ratio, token_estimate_spread: estimated over true prompt tokens, and its
            log-normal spread.
        abort_ratio: share of the clients that leave after *abort_after_s* without a first token.
        max_attempts: endpoints that are tried, one after the other, when one refuses.
        false_label_ratio: share of the first tokens whose time is reported wrong, by a factor of
            up to *false_label_factor* either way.
    """

    first_token_delay_s: float = 0.002
    end_delay_min_s: float = 0.05
    end_delay_max_s: float = 0.25
    scrape_interval_s: float = 0.2
    token_estimate_ratio: float = 1.0
    token_estimate_spread: float = 0.0
    abort_ratio: float = 0.0
    abort_after_s: float = 2.0
    max_attempts: int = 3
    false_label_ratio: float = 0.0
    false_label_factor: float = 100.0

    def parse(self, request: VirtualRequest, rng: random.Random) -> InferenceRequest:
        """*request* as `extproc` would have read it: block hashes and an estimate of its length."""
        ratio = self.token_estimate_ratio
        if self.token_estimate_spread > 0:
            ratio *= math.exp(rng.gauss(0.0, self.token_estimate_spread))
        n_blocks = request.prompt_tokens // BLOCK_TOKENS
        return InferenceRequest(
            model="simulated",
            kind=RequestKind.CHAT_COMPLETIONS,
            # A view: as numbers of their own they would fill the processor's caches.
            block_hashes=request.block_ids.data[:n_blocks],
            prompt_bytes=request.prompt_tokens * BLOCK_BYTES // BLOCK_TOKENS,
            prompt_tokens=request.prompt_tokens * ratio,
            streaming=True,
        )

    def reported_ttft_s(self, ttft_s: float, rng: random.Random) -> float:
        """What is said of a true TTFT; nearly always the truth."""
        if self.false_label_ratio > 0 and rng.random() < self.false_label_ratio:
            reach = math.log(self.false_label_factor)
            return ttft_s * math.exp(rng.uniform(-reach, reach))
        return ttft_s
