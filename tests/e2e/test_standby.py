"""A hot standby by Envoy's priorities: it takes over within a second, and no client fails."""

from __future__ import annotations

import time

import pytest

from replica_stack import ReplicaStack, running_replicas
from steady_load import SteadyLoad
from waiting import until

pytestmark = pytest.mark.long
SWITCHED_WITHIN_S = 5.0
"""A second on a quiet machine, of which the checks take 0.6; a busy one is late itself."""


async def decided(stack: ReplicaStack, number: int) -> float:
    return await stack.replicas[number].metric("lodestar_decisions_total")


@pytest.mark.timeout(180)
async def test_the_standby_is_idle_until_the_first_dies_and_then_decides_all(tmp_path):
    file = "variants/standby.yaml"
    async with running_replicas(tmp_path, 2, file=file, edit=lambda _: None) as stack:
        async with SteadyLoad(stack.envoy.url) as load:
            await until(lambda: len(load.ended) >= 30)
            assert await decided(stack, 1) == 0
            assert await decided(stack, 0) > 0
            stack.replicas[0].kill()
            killed_at_s = time.monotonic()
            await until(lambda: decided(stack, 1))
            switched_s = time.monotonic() - killed_at_s
            await until(lambda: decided_more(stack, 30))
        print(f"switched after {switched_s:.2f} s")

    assert not [each for each in load.ended if each.problem]
    assert switched_s < SWITCHED_WITHIN_S


async def decided_more(stack: ReplicaStack, n: int) -> bool:
    return await decided(stack, 1) >= n
