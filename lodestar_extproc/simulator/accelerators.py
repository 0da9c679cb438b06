"""Accelerators as data: what a step costs on each, and the limits vLLM runs with there.

It knows no engine. All figures are for Llama-3.1-8B in 16 bit on one accelerator (131,072 bytes of
KV cache a token).

Sources: H100, H200, A100, L40S are fitted to the public vLLM tables of NVIDIA's aisimulate (mean
error 1.7 to 4.5 %). RTX 4090 is fitted to the vLLM 0.19 layer profile of casys-kaist/LLMServingSim.
L20 is fitted to the idle requests in the logs of gangmuk/Lodestar (median error 5.4 %). A30 and
V100 have no public table: they are scaled from the others by bandwidth and peak rate, so take them
for classes of hardware, not for measurements.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from lodestar_extproc.simulator.defaults import BLOCK_TOKENS


@dataclass(frozen=True, slots=True)
class StepCost:
    """Time of one step that computes P prompt tokens and decodes B requests.

    ms = max(floor, base + per_token·(P + B)) + attention + per_decode·B + host, where
    attention = per_mpair·Σ n·(past + n/2)/1e6 over the prompt chunks
    + per_kcontext·Σ context/1e3 over the decodes, and *mixed_ratio* more in a step of both kinds
    (profiled mixed steps cost 19 to 29 % more attention than the two apart).
    """

    floor_ms: float
    base_ms: float
    per_token_ms: float
    per_mpair_ms: float
    per_decode_ms: float
    per_kcontext_ms: float
    host_ms: float = 0.7
    mixed_ratio: float = 0.25


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One engine.

    Attributes:
        kv_blocks: KV cache, in blocks of 16 tokens.
        token_budget: tokens scheduled a step.
        max_model_tokens: longest prompt plus output.
        chunked: vLLM V1's scheduler; False is V0's: whole prompts first, decodes wait.
        scheduled_ahead: a step is put together when the one before it begins, so what arrives
            meanwhile waits for one more (vLLM's async scheduling, the default in 0.32).
        api_delay_s: from a request's arrival to the engine's queue.
        jitter_cv: log-normal spread of a step's time.
        stall_ratio: share of the steps that take *stall_min_s* to *stall_max_s* longer.
        max_live_requests: bound on queued and running requests, and so on memory.
    """

    accelerator: str
    cost: StepCost
    kv_blocks: int
    token_budget: int = 2048
    max_running: int = 256
    max_model_tokens: int = 30_000
    chunked: bool = True
    prefix_caching: bool = True
    watermark_blocks: int = 0
    scheduled_ahead: bool = False
    api_delay_s: float = 0.02
    jitter_cv: float = 0.04
    stall_ratio: float = 0.0004
    stall_min_s: float = 0.05
    stall_max_s: float = 0.3
    max_live_requests: int = 16_384

    @property
    def longest_request_tokens(self) -> int:
        """Prompt plus output that can be served at all."""
        limit = min(self.max_model_tokens, self.kv_tokens)
        return limit if self.chunked else min(limit, self.token_budget)

    @property
    def kv_tokens(self) -> int:
        """Tokens the KV cache holds."""
        return self.kv_blocks * BLOCK_TOKENS


ACCELERATORS: Mapping[str, EngineSpec] = MappingProxyType(
    {
        spec.accelerator: spec
        for spec in (
            EngineSpec("a30", StepCost(20.1, 8.0, 0.15, 5.6, 0.01, 0.165), kv_blocks=2_687),
            # vLLM runs as V0 there: no chunking, no prefix cache, 1 % of the blocks in reserve.
            EngineSpec(
                "v100",
                StepCost(28.0, 10.0, 0.25, 10.0, 0.02, 0.21),
                kv_blocks=5_937,
                token_budget=30_000,
                chunked=False,
                prefix_caching=False,
                watermark_blocks=59,
            ),
            EngineSpec("l20", StepCost(19.5, 8.0, 0.157, 4.22, 0.01, 0.178), kv_blocks=12_187),
            EngineSpec(
                "l40s", StepCost(22.7, 12.1, 0.06396, 3.02, 0.0095, 0.204), kv_blocks=12_187
            ),
            # Its profile also names the constants: 1.12 ms of sampling and 0.42 ms of decode
            # attention a step. Nothing here was tuned to the run that `make bench-validate` holds
            # it against.
            EngineSpec(
                "rtx4090",
                StepCost(16.23, 5.71, 0.08936, 2.608, 0.0093, 0.1407, host_ms=1.54),
                kv_blocks=2_588,
            ),
            EngineSpec(
                "a100", StepCost(11.97, 7.64, 0.05516, 2.94, 0.0012, 0.081), kv_blocks=25_000
            ),
            EngineSpec(
                "h100",
                StepCost(6.58, 3.19, 0.01924, 0.836, 0.0052, 0.0414),
                kv_blocks=25_000,
                token_budget=8_192,
                max_running=1_024,
            ),
            EngineSpec(
                "h200",
                StepCost(5.09, 2.23, 0.01939, 0.841, 0.005, 0.0301),
                kv_blocks=51_875,
                token_budget=8_192,
                max_running=1_024,
            ),
        )
    }
)
