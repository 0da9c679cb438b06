"""Three replicas behind one Envoy cluster: each stream of a request may reach another of them."""

from __future__ import annotations

import pytest

from replica_stack import running_replicas
from steady_load import SteadyLoad
from waiting import until

pytestmark = pytest.mark.long
N_REQUESTS = 90


@pytest.mark.timeout(180)
async def test_what_one_replica_hears_of_anothers_request_is_told_to_it(tmp_path):
    async with running_replicas(tmp_path, 3) as stack:
        await until(lambda: _all_know_all(stack))
        async with SteadyLoad(stack.envoy.url) as load:
            await until(lambda: len(load.ended) >= N_REQUESTS)
        await until(stack.nothing_is_open)

        handed = await stack.series('lodestar_handed_over_total{result="handed"}')
        await until(lambda: _received(stack, handed))
        served = await stack.series('lodestar_requests_total{outcome="served",pool="engines"}')
        seen = await stack.total("lodestar_ttft_seconds_count")
        assert handed > N_REQUESTS / 2  # two of three in each kind of stream
        assert await stack.series('lodestar_handed_over_total{result="lost"}') == 0
        assert served == len(load.ended)
        assert seen == sum(
            each.streamed for each in load.ended
        )  # every first token is learned by its owner
        assert not [each for each in load.ended if each.problem]


@pytest.mark.timeout(180)
async def test_replicas_that_cannot_reach_each_other_say_so_and_how_to_mend_it(tmp_path):
    async with running_replicas(tmp_path, 2, know_each_other=False) as stack:
        async with SteadyLoad(stack.envoy.url) as load:
            await until(lambda: _lost(stack))
        logs = [each.log() for each in stack.replicas]

    assert not [each for each in load.ended if each.problem]
    warnings = [line for log in logs for line in log.splitlines() if "cannot be told" in line]
    assert 1 <= len(warnings) <= len(stack.replicas)
    assert all("serve --peer" in line for line in warnings)


async def _all_know_all(stack) -> bool:
    links = len(stack.replicas) * (len(stack.replicas) - 1)
    return sum(each.log().count("is at 127.0.0.1") for each in stack.replicas) >= links


async def _received(stack, handed: float) -> bool:
    return await stack.series('lodestar_handed_over_total{result="received"}') >= handed


async def _lost(stack) -> bool:
    return await stack.series('lodestar_handed_over_total{result="lost"}') > 5
