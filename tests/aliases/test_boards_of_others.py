"""Boards, alerts and autoscalers made for other pickers find what they ask for, in a live scrape."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import pytest_asyncio
from ruamel.yaml import YAML

from admin_world import an_admin_server
from lodestar_extproc.metrics.aliases import PoolAliases, RequestAliases
from metrics_world import World
from prometheus_process import Prometheus, needs_prometheus
from waiting import until

BOARDS = YAML(typ="safe").load(Path(__file__).parent / "queries_of_others.yaml")
QUERIES = [query for queries in BOARDS.values() for query in queries]
LABELS = {"namespace": "models", "service": "picker", "top_level_controller_name": "picker"}

pytestmark = [needs_prometheus, pytest.mark.asyncio(loop_scope="module")]


async def serve_on(world: World) -> None:
    """A request every few milliseconds; one of them stays open, some fail."""
    world.decide(model="llama")
    while True:
        decision = world.decide(model="llama", took_s=0.001)
        world.first_token(decision, 0.3)
        usage = {"prompt_tokens": 900, "cached_tokens": 300, "output_tokens": 40}
        world.end(decision, answer_bytes=4000, duration_s=1.5, response_code=200, **usage)
        world.end(world.decide(model="llama"), response_code=400)
        world.scraped(1, running_requests=3.0, waiting_requests=2.0, kv_usage_ratio=0.5)
        await asyncio.sleep(0.01)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def prometheus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prometheus")
    async with an_admin_server(n=2, burn_in_samples=1) as (world, address):
        aliases = RequestAliases(lambda: world.now_s)
        world.router.listeners.add(aliases)
        world.metrics.show(aliases)
        world.metrics.show(PoolAliases(lambda: [world.view()]))
        serving = asyncio.create_task(serve_on(world))
        with Prometheus(address, folder, **LABELS) as running:
            await until(lambda: asyncio.to_thread(running.is_up))
            await until(
                lambda: asyncio.to_thread(running.ask, "rate(llm_d_epp_request_total[15s]) > 0")
            )
            running.address = address
            yield running
        serving.cancel()


@pytest.mark.parametrize("query", QUERIES)
async def test_a_query_of_their_boards_finds_numbers(prometheus, query):
    asked = query.replace("$__rate_interval", "15s").replace("$__range", "1m")

    found = await until(lambda: asyncio.to_thread(prometheus.ask, asked))
    assert all(each["value"][1] != "NaN" for each in found), found


async def test_the_numbers_are_right(prometheus):
    async def of(query: str) -> float:
        (found,) = await asyncio.to_thread(prometheus.ask, query)
        return float(found["value"][1])

    assert await of("sum(llm_d_epp_request_running)") == 1.0
    assert await of("inference_pool_average_queue_size") == 1.0
    assert await of("inference_pool_ready_pods") == 2.0
    # (max(2/5, 0.5/0.8) + 0) / 2
    assert await of("llm_d_epp_flow_control_pool_saturation") == pytest.approx(0.3125)
    errors = "sum(rate(llm_d_epp_request_error_total[5m])) / sum(rate(llm_d_epp_request_total[5m]))"
    assert await of(errors) == pytest.approx(0.5, abs=0.1)


async def test_an_exemplar_is_a_decision_that_can_be_explained(prometheus):
    query = "lodestar_ttft_seconds_bucket"
    found = await until(lambda: asyncio.to_thread(prometheus.exemplars, query))

    assert {label for each in found for label in each["labels"]} == {"decision_id"}
    assert found[-1]["labels"]["decision_id"].startswith("pool.")
