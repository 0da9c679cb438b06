"""An engine that answers fast and wrongly, or stops in mid-answer, behind a real Envoy.

The quick tests hold the bound for one of each kind; a slow one measures all, beside Envoy's own
least_request, for docs/reliability.md.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from black_hole_stack import black_hole_stack
from lodestar_extproc.fleet.health_state import HealthState
from scripted_engine import WRONG, good, in_gzip
from waiting import until

pytestmark = pytest.mark.truth

TENTH_OF_FAIR = 0.1 / 3
"""Of three engines."""
N_FOUND_OUT, N_REQUESTS = 20, 60
POLICIES = ("learned", "prefix_affinity_token_load", "least_request")


MORE_OF_THEM = ("204", "401", "a token, then abort")


@pytest.mark.parametrize(
    "fault",
    [
        "HTML under 200",
        "only [DONE]",
        "429",
        *(pytest.param(fault, marks=pytest.mark.slow) for fault in MORE_OF_THEM),
    ],
)
async def test_a_black_hole_keeps_a_tenth_of_its_share_at_most(fault, tmp_path):
    async with black_hole_stack(tmp_path, WRONG[fault], policy="least_request") as stack:
        await stack.run(N_FOUND_OUT)
        assert await stack.run(N_REQUESTS) <= TENTH_OF_FAIR


async def test_a_learned_pool_is_not_led_astray_by_a_liar(tmp_path):
    async with black_hole_stack(tmp_path, WRONG["abort at first"], policy="learned") as stack:
        await stack.warm(30)
        await stack.run(N_FOUND_OUT)
        assert await stack.run(N_REQUESTS) <= TENTH_OF_FAIR
        # The others are trusted as before.
        status = stack.router.learner.status()
        assert stack.bad.address not in {e.address for e in status.endpoints if e.doubtful}


async def test_an_engine_that_stops_in_mid_answer_is_found_out(tmp_path):
    script = WRONG["a token, then silence"]
    async with black_hole_stack(tmp_path, script, policy="round_robin") as stack:
        # Whoever asks it hangs; those who come later show that the others go on.
        first = asyncio.create_task(stack.run(N_FOUND_OUT, patience_s=4.0))
        await until(lambda: stack.ask_until_out(time.monotonic))
        await first
        assert await stack.run(N_REQUESTS, interval_s=0.04) <= TENTH_OF_FAIR


async def test_a_mended_engine_comes_back(tmp_path):
    async with black_hole_stack(tmp_path, WRONG["429"], policy="round_robin") as stack:
        await stack.run(N_FOUND_OUT)
        stack.bad.script = good()
        await stack.run(N_REQUESTS)
        assert stack.state(time.monotonic()) is HealthState.HEALTHY


async def test_what_a_refusal_asks_for_is_heard_of_envoy(tmp_path):
    script = replace(WRONG["429"], headers={"retry-after": "30"})
    async with black_hole_stack(tmp_path, script, policy="round_robin") as stack:
        await stack.run(12)
        await until(lambda: stack.state(time.monotonic()) is HealthState.COOLING)
        assert stack.state(time.monotonic() + 20.0) is HealthState.COOLING


async def test_compressed_answers_are_as_good_as_plain_ones(tmp_path):
    async with black_hole_stack(tmp_path, in_gzip(good()), policy="learned") as stack:
        await stack.run(30)
        assert stack.router.fleet.health.all_healthy
        assert stack.bad.address in {e.address for e in stack.router.learner.status().endpoints}


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_the_table_of_black_holes(tmp_path):
    """Prints the share of users that the bad engine gets after 20 requests."""
    print("\n| it answers | " + " | ".join((*POLICIES, "Envoy alone")) + " |")
    print("|---" * (len(POLICIES) + 2) + "|")
    for number, (fault, script) in enumerate(WRONG.items()):
        shares = []
        for policy in (*POLICIES, None):
            folder = tmp_path / f"{number}{policy}"
            folder.mkdir()
            settings = {"policy": policy or "least_request"}
            async with black_hole_stack(
                folder, script, decides=policy is not None, **settings
            ) as stack:
                await stack.warm(20)
                await stack.run(N_FOUND_OUT, interval_s=0.03)
                shares.append(await stack.run(80, interval_s=0.03))
        print(f"| {fault} | " + " | ".join(f"{100 * s:.0f} %" for s in shares) + " |", flush=True)
