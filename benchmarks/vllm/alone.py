"""One idle engine: its first token by prompt length, time per token by batch, size of cache."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from engines import MODEL, EnginePlan

from lodestar_extproc.evaluation.load import events
from lodestar_extproc.fleet.engine_metrics import parse

TOKENS = range(100, 4000)
"""Ids of ordinary tokens of the made model."""
REPEATS = 3
BATCHES = (1, 4, 16)
BATCH_PROMPT_TOKENS = 512
DECODED_TOKENS = 48


@dataclass(frozen=True)
class Timed:
    """One answer; seconds."""

    ttft_s: float
    tpot_s: float


async def alone(plan: EnginePlan, prompt_tokens: Sequence[int]) -> dict[str, Any]:
    """Measure the engine of *plan* with prompts it has never seen."""
    rng = random.Random(plan.port)
    async with aiohttp.ClientSession(raise_for_status=True) as session:

        async def ask(n_prompt: int, n_output: int) -> Timed:
            return await _ask(session, plan, rng.choices(TOKENS, k=n_prompt), n_output)

        await ask(64, 4)
        prefill = [
            {"prompt_tokens": n, "ttft_s": [(await ask(n, 1)).ttft_s for _ in range(REPEATS)]}
            for n in prompt_tokens
        ]
        decode = []
        for batch in BATCHES:
            timed = await asyncio.gather(
                *(ask(BATCH_PROMPT_TOKENS, DECODED_TOKENS) for _ in range(batch))
            )
            decode.append(
                {
                    "batch": batch,
                    "ttft_s": [each.ttft_s for each in timed],
                    "tpot_s": [each.tpot_s for each in timed],
                }
            )
        async with session.get(f"{plan.url}/metrics") as response:
            kv_tokens = parse(await response.read(), "vllm").kv_capacity_tokens
    return {"kv_tokens": kv_tokens, "prefill": prefill, "decode": decode}


async def _ask(
    session: aiohttp.ClientSession, plan: EnginePlan, prompt: Sequence[int], n_output: int
) -> Timed:
    body = {"model": MODEL, "prompt": list(prompt), "max_tokens": n_output, "stream": True}
    sent_s = time.perf_counter()
    async with session.post(f"{plan.url}/v1/completions", json=body) as response:
        seen_s = [
            time.perf_counter() - sent_s
            async for event in events(response.content)
            if event != b"[DONE]"
        ]
    return Timed(seen_s[0], (seen_s[-1] - seen_s[0]) / max(1, n_output - 1))
