"""Real routers on simulated engines: whatever happens, what was taken is given back."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import suppress

import aiohttp
import pytest

from envoy_process import cluster_of
from lodestar_extproc.simulator.defaults import DEFAULT_MODEL
from simulated_stack import FULL_DUPLEX, simulated_stack
from waiting import until

N_REQUESTS = 40


FAULTS = {
    "none": {"kind": "none"},
    "busy": {"kind": "503"},
    "reset": {"kind": "reset"},
    "cut mid-stream": {"kind": "drop_mid_stream", "after_tokens": 2},
    "error event": {"kind": "error_event", "after_tokens": 2},
    "error before any token": {"kind": "error_event", "after_tokens": 0},
    "frozen": {"kind": "freeze"},
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("file", ["envoy.yaml", "variants/streamed.yaml", FULL_DUPLEX])
async def test_nothing_stays_in_flight(tmp_path, file, fault):
    rng = random.Random(1)
    async with simulated_stack(tmp_path, file) as stack:
        await stack.break_engine(0, **FAULTS[fault])

        async def is_served(number: int) -> bool:
            # A third of the clients leave; of a frozen engine, all who wait for it.
            longest_s = 2.0 if fault == "frozen" else 30.0
            patience_s = rng.uniform(0.0, 0.3) if number % 3 == 0 else longest_s
            with suppress(TimeoutError, aiohttp.ClientError):
                answer = await asyncio.wait_for(stack.ask(stream=number % 4 != 0), patience_s)
                return b'"choices"' in answer
            return False

        served = await asyncio.gather(*map(is_served, range(N_REQUESTS)))
        assert any(served)
        await until(lambda: stack.router.n_open == 0)
        assert stack.router.fleet.n_in_flight == 0
        snapshot = stack.router.fleet.everything(0.0)
        assert snapshot.in_flight.sum() == 0
        assert snapshot.prefill_uncached_tokens.sum() == 0
        assert snapshot.decode_context_tokens.sum() == 0
        assert {"protocol", "internal"}.isdisjoint(what[-1] for what in stack.listener.heard)


async def test_first_tokens_end_prefills_while_answers_go_on(tmp_path):
    async with simulated_stack(tmp_path) as stack:
        answers = [asyncio.create_task(stack.ask(max_tokens=2000)) for _ in range(8)]
        await until(lambda: stack.router.fleet.everything(0.0).decode_requests.sum() == 8)
        assert not any(answer.done() for answer in answers)
        for answer in answers:
            assert (await answer).endswith(b"data: [DONE]\n\n")
        await until(lambda: stack.router.n_open == 0)


async def test_the_usage_of_watched_answers_teaches_bytes_per_token(tmp_path):
    async with simulated_stack(tmp_path, observed_ratio=1.0, bytes_per_token=1.0) as stack:
        for _ in range(20):
            await stack.ask()
        await until(lambda: stack.router.n_open == 0)
        assert stack.router.bytes_per_token(DEFAULT_MODEL) > 2.0


def never_bypassed(config) -> None:
    """On a busy machine health checks come late, and Envoy goes on without us."""
    del cluster_of(config, "lodestar")["health_checks"]


async def test_as_a_mesh_asks_a_load_passes_without_a_failure_and_teaches(tmp_path):
    """Open-loop arrivals, a fifth of them in one piece, through full duplex both ways."""
    rng, n_requests = random.Random(2), 300
    async with simulated_stack(
        tmp_path, FULL_DUPLEX, edit=never_bypassed, policy="learned"
    ) as stack:
        asked = []
        for number in range(n_requests):
            request = stack.ask(stream=number % 5 != 0, max_tokens=rng.randrange(1, 60))
            asked.append(asyncio.create_task(request))
            await asyncio.sleep(rng.expovariate(100.0))
        answers = await asyncio.gather(*asked)
        for number, answer in enumerate(answers):
            if number % 5:
                assert answer.endswith(b"data: [DONE]\n\n")
            else:
                assert json.loads(answer)["choices"]
        await until(lambda: stack.router.n_open == 0)
        assert stack.router.fleet.n_in_flight == 0
        assert stack.router.learner.status().n_samples == n_requests * 4 // 5
        await until(lambda: stack.listener.count("closed", "chosen") == n_requests)
