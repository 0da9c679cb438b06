from contextlib import asynccontextmanager, closing
from dataclasses import replace

import pytest

from builders import live_settings
from fake_engine import FakeEngine
from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.fleet.engine_client import EngineClient
from lodestar_extproc.fleet.prober import Prober
from running import running
from waiting import until


@asynccontextmanager
async def probing(*endpoints: Endpoint, timeout_s: float = 1.0):
    published: list[tuple[str, str, float]] = []
    with closing(EngineClient()) as client:
        prober = Prober(
            client,
            lambda *probe: published.append(probe),
            live_settings(health_interval_s=0.05, health_timeout_s=timeout_s),
        )
        prober.set_endpoints(endpoints)
        async with running(prober.run()):
            yield published


@pytest.mark.parametrize(
    ("status", "healthy"), [(200, True), (204, True), (302, False), (404, False), (503, False)]
)
async def test_an_answer_of_2xx_is_healthy(status, healthy):
    fake = FakeEngine()
    fake.status = status
    async with fake.serve() as endpoint, probing(endpoint) as published:
        await until(lambda: len(published) >= 2)

    problem = "" if healthy else f"{endpoint.health_url} answered {status}"
    assert {probe[:2] for probe in published} == {(endpoint.address, problem)}


async def test_no_answer_in_time_is_unhealthy():
    fake = FakeEngine()
    fake.delay_s = 1.0
    async with fake.serve() as endpoint, probing(endpoint, timeout_s=0.05) as published:
        await until(lambda: len(published) >= 1)

    assert published[0][1] == f"{endpoint.health_url} did not answer within 0.05 s"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/health", "no url"])
async def test_no_connection_is_unhealthy(url):
    async with probing(Endpoint("10.0.0.1:8000", health_url=url)) as published:
        await until(lambda: len(published) >= 1)

    assert published[0][0] == "10.0.0.1:8000"
    assert published[0][1]


async def test_an_endpoint_without_a_health_url_is_not_judged():
    fake = FakeEngine()
    async with fake.serve() as endpoint:
        silent = replace(endpoint, address="10.0.0.9:8000", health_url=None)
        async with probing(silent, endpoint) as published:
            await until(lambda: len(published) >= 3)

    assert {address for address, _, _ in published} == {endpoint.address}


async def test_one_that_joins_is_asked_at_once_however_seldom_the_others_are():
    published: list[tuple[str, str, float]] = []
    fake, late = FakeEngine(), FakeEngine()
    async with fake.serve() as known, late.serve() as newcomer:
        with closing(EngineClient()) as client:
            prober = Prober(
                client,
                lambda *probe: published.append(probe),
                live_settings(health_interval_s=3600.0),
            )
            prober.set_endpoints([known])
            async with running(prober.run()):
                await until(lambda: len(published) == 1)
                prober.set_endpoints([known, newcomer])
                await until(lambda: len(published) == 2)

    assert [address for address, _, _ in published] == [known.address, newcomer.address]
