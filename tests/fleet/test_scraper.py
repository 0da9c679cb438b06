import asyncio
import itertools
import time
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import replace

import numpy as np
import pytest

from builders import live_settings
from fake_engine import FakeEngine
from lodestar_extproc.endpoint import Endpoint, EndpointMetrics
from lodestar_extproc.fleet.engine_client import EngineClient
from lodestar_extproc.fleet.fleet import Fleet
from lodestar_extproc.fleet.scrape_budget import ScrapeBudget
from lodestar_extproc.fleet.scraper import MAX_PAGE_BYTES, SLICE_BYTES, Scraper
from running import running
from scraping import scraper_at_work
from waiting import until

INTERVAL_S = 0.04


class Published:
    """Remembers what was published."""

    def __init__(self) -> None:
        self.all: list[tuple[str, EndpointMetrics, float]] = []

    def __call__(self, address: str, metrics: EndpointMetrics, at_s: float) -> None:
        self.all.append((address, metrics, at_s))

    def count(self, endpoint: Endpoint) -> int:
        return sum(1 for address, _, _ in self.all if address == endpoint.address)


@asynccontextmanager
async def scraping(*endpoints: Endpoint, interval_s=INTERVAL_S, **more):
    published = Published()
    async with scraper_at_work(
        *endpoints, publish=published, interval_s=interval_s, **more
    ) as scraper:
        yield scraper, published


@asynccontextmanager
async def engines(n: int):
    async with AsyncExitStack() as stack:
        fakes = [FakeEngine() for _ in range(n)]
        yield [(fake, await stack.enter_async_context(fake.serve())) for fake in fakes]


async def test_a_large_page_is_read_whole_and_the_loop_turns_meanwhile():
    lines = [f'vllm:num_requests_running{{engine="{i}",model_name="m"}} 1.0' for i in range(1000)]
    filler = [f'vllm:e2e_request_latency_seconds_bucket{{le="{i}"}} 1.0' for i in range(36_000)]
    lines = [*lines[:500], *filler, *lines[500:]]
    async with engines(1) as [(fake, endpoint)]:
        fake.page = "\n".join(lines).encode()
        assert MAX_PAGE_BYTES / 2 < len(fake.page) < MAX_PAGE_BYTES
        async with scraping(endpoint, timeout_s=10.0) as (_, published):
            turns = 0
            while not published.all:
                await asyncio.sleep(0)
                turns += 1
        assert published.all[0][1].running_requests == 1000.0
        assert turns > len(fake.page) / (2 * SLICE_BYTES)


async def test_what_an_engine_says_is_published_with_the_time_it_was_asked():
    async with engines(1) as [(_, endpoint)]:
        started_at_s = time.monotonic()
        async with scraping(endpoint) as (scraper, published):
            await until(lambda: len(published.all) >= 3)

    address, metrics, at_s = published.all[0]
    assert address == endpoint.address
    assert metrics.running_requests == 3.0
    assert started_at_s <= at_s <= time.monotonic()
    assert scraper.counts[endpoint.address].failed == 0


async def test_every_endpoint_is_scraped_once_an_interval_over_one_connection():
    async with engines(10) as pairs, scraping(*(e for _, e in pairs)) as (_, published):
        await until(lambda: all(published.count(e) >= 5 for _, e in pairs))

        for fake, _ in pairs:
            gaps = [b - a for a, b in zip(fake.asked_at_s, fake.asked_at_s[1:], strict=False)]
            assert sum(gaps) / len(gaps) > 0.8 * INTERVAL_S
            assert len(fake.connections) == 1


async def test_scrapes_are_spread_over_the_interval():
    interval_s = 0.4
    async with engines(16) as pairs, scraping(*(e for _, e in pairs), interval_s=interval_s):
        await until(lambda: all(fake.asked_at_s for fake, _ in pairs))

    firsts = sorted(fake.asked_at_s[0] for fake, _ in pairs)
    assert firsts[-1] - firsts[0] > 0.6 * interval_s


async def test_a_slow_endpoint_delays_nobody_and_is_not_asked_twice():
    async with engines(9) as pairs:
        slow, slow_endpoint = pairs[0]
        slow.delay_s = 10 * INTERVAL_S
        async with scraping(*(e for _, e in pairs)) as (_, published):
            await until(lambda: published.count(slow_endpoint) == 2)

            quick = [published.count(e) for _, e in pairs[1:]]
            # 20 where nothing else runs.
            assert min(quick) >= 4
            assert slow.most_open == 1


@pytest.mark.parametrize("status", [204, 302, 404, 500, 503])
async def test_a_page_refused_is_counted_and_not_published(status):
    async with engines(1) as [(fake, endpoint)]:
        fake.status = status
        async with scraping(endpoint) as (scraper, published):
            await until(lambda: scraper.counts[endpoint.address].failed >= 2)

    assert published.all == []
    assert str(status) in scraper.counts[endpoint.address].last_failure


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/metrics", "no url", "http://[::bad/metrics"])
async def test_an_engine_that_cannot_be_reached_is_counted(url):
    endpoint = Endpoint("10.0.0.1:8000", metrics_url=url)
    async with scraping(endpoint) as (scraper, published):
        await until(lambda: scraper.counts[endpoint.address].failed >= 2)

    assert published.all == []
    assert scraper.counts[endpoint.address].last_failure


async def test_an_engine_that_does_not_answer_in_time_is_counted():
    async with engines(1) as [(fake, endpoint)]:
        fake.delay_s = 1.0
        async with scraping(endpoint, timeout_s=0.05) as (scraper, published):
            await until(lambda: scraper.counts[endpoint.address].failed >= 2)

    assert published.all == []


async def test_a_page_beyond_all_measure_is_not_read():
    async with engines(1) as [(fake, endpoint)]:
        fake.page = b"x" * (MAX_PAGE_BYTES + 1)
        async with scraping(endpoint) as (scraper, published):
            await until(lambda: scraper.counts[endpoint.address].failed >= 1)

    assert published.all == []


async def test_a_page_beyond_all_measure_leaves_its_endpoint_routable():
    async with engines(1) as [(fake, endpoint)]:
        fake.page = b"vllm:num_requests_running 3\n" * (MAX_PAGE_BYTES // 20)
        fleet = Fleet(live_settings(), [endpoint])
        async with scraping(endpoint) as (scraper, _):
            await until(lambda: scraper.counts[endpoint.address].failed >= 1)
        assert f"more than {MAX_PAGE_BYTES} bytes" in scraper.counts[endpoint.address].last_failure
    assert fleet.snapshot(0.0).endpoints == (endpoint,)
    assert fleet.health.all_healthy


async def test_a_page_of_something_else_publishes_that_nothing_is_known():
    async with engines(1) as [(fake, endpoint)]:
        fake.page = b"<html>hello</html>"
        async with scraping(endpoint) as (_, published):
            await until(lambda: published.all != [])

    assert published.all[0][1] == EndpointMetrics()


async def test_an_engine_that_comes_back_is_published_again():
    async with engines(1) as [(fake, endpoint)], scraping(endpoint) as (scraper, published):
        fake.status = 503
        await until(lambda: scraper.counts[endpoint.address].failed >= 2)
        fake.status = 200
        await until(lambda: published.count(endpoint) >= 2)


async def test_endpoints_are_replaced_while_running():
    async with engines(2) as [(_, first), (slow, second)]:
        slow.delay_s = 0.05
        async with scraping(first) as (scraper, published):
            await until(lambda: published.count(first) >= 1)
            scraper.set_endpoints([second])
            before = published.count(first)
            await until(lambda: published.count(second) >= 2)

            assert published.count(first) == before
            assert list(scraper.counts) == [second.address]


async def test_a_scrape_under_way_of_an_endpoint_that_left_is_dropped():
    async with engines(2) as [(slow, first), (_, second)]:
        slow.delay_s = 0.1
        async with scraping(first) as (scraper, published):
            await until(lambda: slow.open == 1)
            scraper.set_endpoints([replace(second, address=first.address)])
            await until(lambda: len(published.all) >= 4)

            assert slow.most_open == 1
            assert len(slow.asked_at_s) == 1


async def test_an_endpoint_without_a_metrics_url_is_left_alone():
    endpoint = Endpoint("10.0.0.1:8000")
    async with engines(1) as [(_, other)], scraping(endpoint, other) as (scraper, published):
        await until(lambda: published.count(other) >= 2)

    assert endpoint.address not in scraper.counts


async def test_without_traffic_pages_are_read_at_the_idle_pace():
    busy = False
    async with (
        engines(1) as [(fake, endpoint)],
        scraping(endpoint, busy=lambda: busy, idle_interval_s=5 * INTERVAL_S),
    ):
        await until(lambda: len(fake.asked_at_s) >= 3)
        gaps = [b - a for a, b in zip(fake.asked_at_s, fake.asked_at_s[1:], strict=False)]
        assert min(gaps) > 3 * INTERVAL_S

        busy = True
        asked = len(fake.asked_at_s)
        turned_busy_at_s = time.monotonic()
        await until(lambda: len(fake.asked_at_s) >= asked + 4)
        assert time.monotonic() - turned_busy_at_s < 15 * INTERVAL_S


async def test_an_engine_at_rest_is_read_at_the_idle_pace_and_at_once_when_it_has_work():
    resting = set()
    async with (
        engines(2) as [(fake, endpoint), (other, working)],
        scraping(
            endpoint, working, at_rest=resting.__contains__, idle_interval_s=10 * INTERVAL_S
        ) as (_, published),
    ):
        await until(lambda: published.count(endpoint) >= 2)
        resting.add(endpoint.address)
        asked = len(fake.asked_at_s)
        await until(lambda: len(fake.asked_at_s) >= asked + 3)
        gaps = [b - a for a, b in itertools.pairwise(fake.asked_at_s[asked:])]
        assert min(gaps) > 6 * INTERVAL_S
        assert len(other.asked_at_s) > 2 * len(fake.asked_at_s)

        resting.clear()
        asked = len(fake.asked_at_s)
        has_work_at_s = time.monotonic()
        await until(lambda: len(fake.asked_at_s) >= asked + 2)
        assert time.monotonic() - has_work_at_s < 6 * INTERVAL_S


async def test_what_an_engine_at_rest_said_is_never_older_than_what_counts_as_known():
    live = live_settings(scrape_interval_s=INTERVAL_S, scrape_stale_s=6 * INTERVAL_S)
    async with engines(1) as [(fake, endpoint)]:
        with closing(EngineClient()) as client:
            scraper = Scraper(client, Published(), live, at_rest=lambda _: True)
            scraper.set_endpoints([endpoint])
            async with running(scraper.run()):
                await until(lambda: len(fake.asked_at_s) >= 5)

    gaps = [b - a for a, b in itertools.pairwise(fake.asked_at_s)]
    assert INTERVAL_S < np.median(gaps) < 5 * INTERVAL_S


async def test_engines_at_rest_leave_the_budget_to_those_that_work():
    resting = set()
    async with (
        engines(8) as pairs,
        scraping(
            *(e for _, e in pairs),
            at_rest=resting.__contains__,
            idle_interval_s=10 * INTERVAL_S,
            budget=ScrapeBudget(1e-3),
        ) as (scraper, published),
    ):
        await until(lambda: all(published.count(e) >= 1 for _, e in pairs))
        stretched_s = scraper.interval_s
        assert stretched_s > 2 * INTERVAL_S
        resting.update(e.address for _, e in pairs[1:])
        await until(lambda: scraper.interval_s < stretched_s / 2)


async def test_nothing_is_left_running():
    async with engines(1) as [(fake, endpoint)]:
        fake.delay_s = 0.2
        before = asyncio.all_tasks()
        async with scraping(endpoint):
            await until(lambda: fake.open == 1)
        left = {task for task in asyncio.all_tasks() - before if "Scraper" in repr(task)}

    assert left == set()
