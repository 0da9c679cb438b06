"""Pages of which a part is asked for: what is read of them, where the engine can give it alone."""

import threading
import time
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import parse_qs, urlsplit
from wsgiref.simple_server import WSGIRequestHandler, make_server

import prometheus_client
import pytest

from fake_engine import FakeEngine
from lodestar_extproc.endpoint import Endpoint, EndpointMetrics
from lodestar_extproc.fleet.engine_metrics import names_read, parse
from lodestar_extproc.fleet.page_url import RETRY_S, WORTH_BYTES, PageUrl
from metric_pages import a_short_page, a_vllm_page, part_of
from scraping import scraper_at_work
from waiting import until

URL = "http://10.0.0.1:8000/metrics"
INTERVAL_S = 0.02


class Clock:
    """Monotonic seconds, some of which can be left out."""

    def __init__(self) -> None:
        self.left_out_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.left_out_s


@asynccontextmanager
async def scraping(endpoint: Endpoint, clock=time.monotonic, timeout_s=1.0):
    published: list[EndpointMetrics] = []

    def publish(_: str, said: EndpointMetrics, __: float) -> None:
        published.append(said)

    async with scraper_at_work(
        endpoint, publish=publish, interval_s=INTERVAL_S, timeout_s=timeout_s, clock=clock
    ) as scraper:
        yield scraper, published


@contextmanager
def served(application):
    """A WSGI application on a port of its own, and the paths it was asked for."""
    asked: list[str] = []

    class Quiet(WSGIRequestHandler):
        def log_message(self, *_: object) -> None:
            asked.append(self.path)

    with make_server("127.0.0.1", 0, application, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def a_registry() -> prometheus_client.CollectorRegistry:
    """Of a vLLM engine, by the library that vLLM writes its page with."""
    registry = prometheus_client.CollectorRegistry()
    labels = ["engine", "model_name"]
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
        gauge = prometheus_client.Gauge(f"vllm:{name}", "A gauge.", labels, registry=registry)
        gauge.labels("0", "m").set(0.5)
    for name in ("generation_tokens", "prefix_cache_queries", "prefix_cache_hits"):
        counter = prometheus_client.Counter(f"vllm:{name}", "A total.", labels, registry=registry)
        counter.labels("0", "m").inc(7)
    prometheus_client.Info("vllm:cache_config", "The cache.", registry=registry).info(
        {"block_size": "16", "num_gpu_blocks": "100", "enable_prefix_caching": "True"}
    )
    for number in range(30):
        name = f"vllm:time_{number}_seconds"
        prometheus_client.Histogram(name, "A time.", labels, registry=registry).labels("0", "m")
    return registry


def whole_only(application):
    """As vLLM up to 0.24: a path without a slash at its end gets all of the page."""

    def answer(environ, start_response):
        if not environ["PATH_INFO"].endswith("/"):
            environ["QUERY_STRING"] = ""
        return application(environ, start_response)

    return answer


@pytest.mark.parametrize("wrap", [whole_only, lambda application: application])
async def test_an_engine_that_can_gives_what_is_read_of_its_page_alone(wrap):
    with served(wrap(prometheus_client.make_wsgi_app(a_registry()))) as (url, asked):
        endpoint = Endpoint(url[7:], metrics_url=f"{url}/metrics")
        async with scraping(endpoint) as (scraper, published):
            await until(lambda: len(published) >= 8)
        assert asked[0] == "/metrics"
        # All but the first, and one more that a first way did not get.
        assert sum("?" not in path for path in asked) <= 2
        assert all("name%5B%5D=" in path for path in asked[4:])
    assert set(published) == {published[0]}
    assert published[0].running_requests == 0.5
    assert published[0].prefix_hit_tokens == 7
    assert published[0].kv_capacity_tokens == 1600
    assert scraper.counts[endpoint.address].failed == 0


async def test_what_is_asked_for_is_a_tenth_of_vllms_page_and_says_the_same():
    part = part_of(a_vllm_page(), [name.decode() for name in names_read("vllm")])
    assert len(part) < len(a_vllm_page()) / 10
    assert parse(part, "vllm") == parse(a_vllm_page(), "vllm")


async def test_an_engine_that_gives_no_parts_is_asked_for_them_once_a_while():
    fake, clock = FakeEngine(), Clock()
    fake.page = a_vllm_page()
    async with fake.serve() as endpoint, scraping(endpoint, clock) as (scraper, published):
        await until(lambda: len(published) >= 10)
        assert sum("?" in path for path in fake.asked_for) == 2
        clock.left_out_s = RETRY_S
        asked, fake.gives_parts = len(fake.asked_for), True
        await until(lambda: len(fake.asked_for) >= asked + 8)
        assert all("?" in path for path in fake.asked_for[-4:])
    assert set(published) == {published[0]}
    assert scraper.counts[endpoint.address].failed == 0


async def test_a_part_that_lost_what_the_page_had_is_not_believed():
    # An engine that is started anew with several front ends: its parts are empty then.
    fake = FakeEngine()
    fake.page, fake.gives_parts = a_vllm_page(), True
    async with fake.serve() as endpoint, scraping(endpoint) as (scraper, published):
        await until(lambda: any("/metrics/?" in path for path in fake.asked_for))
        fake.part = b""
        seen = len(published)
        await until(lambda: len(published) >= seen + 6)
    assert set(published) == {parse(fake.page, "vllm")}
    assert scraper.counts[endpoint.address].failed == 0
    assert fake.asked_for[-1] == "/metrics"


async def test_a_name_that_a_later_page_lacks_is_lost_for_good():
    fake = FakeEngine()
    fake.page, fake.gives_parts = a_vllm_page(), True
    async with fake.serve() as endpoint, scraping(endpoint) as (_, published):
        await until(lambda: any("/metrics/?" in path for path in fake.asked_for))
        fake.page = fake.page.replace(b"vllm:kv_cache_usage_perc", b"vllm:something_else")
        await until(lambda: published[-1].kv_usage_ratio is None)
    assert published[-1].running_requests == 3.0


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 405, 500])
async def test_an_engine_that_refuses_the_question_is_read_whole(status):
    fake = FakeEngine()
    fake.page, fake.status_of_part = a_vllm_page(), status
    async with fake.serve() as endpoint, scraping(endpoint) as (scraper, published):
        await until(lambda: len(published) >= 6)
        assert sum("?" in path for path in fake.asked_for) == 2
    assert scraper.counts[endpoint.address].failed == 0


async def test_an_engine_that_is_silent_to_the_question_is_read_whole_the_next_time():
    fake = FakeEngine()
    fake.page, fake.delay_of_part_s = a_vllm_page(), 5.0
    async with fake.serve() as endpoint, scraping(endpoint, timeout_s=0.3) as (scraper, published):
        await until(lambda: len(published) >= 8)
        assert sum("?" in path for path in fake.asked_for) == 1
    assert scraper.counts[endpoint.address].failed == 1


@pytest.mark.parametrize("query", ["?", "?name[]=vllm:num_requests_running", "?format=text#top"])
async def test_a_url_with_a_query_is_asked_for_as_it_is(query):
    fake = FakeEngine()
    fake.page = a_vllm_page()
    async with fake.serve() as endpoint:
        asked = Endpoint(endpoint.address, metrics_url=f"{endpoint.metrics_url}{query}")
        async with scraping(asked) as (_, published):
            await until(lambda: len(published) >= 4)
    assert len(set(fake.asked_for)) == 1


def test_a_page_that_is_short_or_says_nothing_is_asked_for_whole():
    short, strange, unknown = PageUrl(URL, "vllm"), PageUrl(URL, "vllm"), PageUrl(URL, "abacus")
    short.saw_whole(names_read("vllm"), len(a_short_page()))
    strange.saw_whole(frozenset(), 10 * WORTH_BYTES)
    unknown.saw_whole(names_read("vllm"), 10 * WORTH_BYTES)
    assert [url.part(0.0) for url in (short, strange, unknown)] == [None, None, None]


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm", "triton"])
def test_all_names_that_are_read_are_asked_for(engine):
    url = PageUrl(URL, engine)
    url.saw_whole(names_read(engine), 10 * WORTH_BYTES)
    part = url.part(0.0)
    assert part is not None
    asked = parse_qs(urlsplit(part).query)["name[]"]
    assert {name.encode() for name in asked} == names_read(engine)


def test_another_url_at_the_same_address_begins_anew():
    url = PageUrl(URL, "vllm")
    assert url.serves(URL, "vllm")
    assert not url.serves(f"{URL}2", "vllm")
    assert not url.serves(URL, "sglang")
