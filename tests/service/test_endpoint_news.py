"""What the log says of endpoints, and how often."""

import logging
import resource

import pytest

from builders import a_router
from lodestar_extproc.fleet.engine_client import EngineClient
from lodestar_extproc.fleet.health_state import HealthState
from lodestar_extproc.fleet.scraper import Scraper
from lodestar_extproc.service import file_limit
from lodestar_extproc.service.endpoint_news import EndpointNews
from lodestar_extproc.service.file_limit import raise_file_limit, tell_if_too_few_files


@pytest.fixture(autouse=True)
def _heard(caplog):
    caplog.set_level(logging.INFO)


def said(caplog):
    found = [(record.levelname, record.getMessage()) for record in caplog.records]
    caplog.clear()
    return found


def test_what_a_probe_finds_is_passed_on_and_counts_for_health():
    router, found = a_router(2), []
    news = EndpointNews(router, lambda *each: found.append(each))
    address = router.fleet.endpoints[0].address
    for at_s in range(3):
        news.probed(address, "/health answered 503", float(at_s))
    assert found == [(address, "/health answered 503")] * 3
    assert router.fleet.health.state(address, 3.0) is HealthState.DOWN

    news.probed(address, "", 4.0)
    assert len(found) == 3
    assert router.fleet.health.state(address, 4.0) is not HealthState.DOWN


def test_pages_that_are_read_less_often_are_told_once(caplog):
    router = a_router(2)
    news = EndpointNews(router)
    scraper = Scraper(EngineClient(), router.fleet.record_metrics, router.live)
    for _ in range(1000):
        scraper.pace.spent(5e-3)
    scraper.pace.ask(512, 0.2)
    for _ in range(3):
        news.paced(scraper)
    [(level, text)] = said(caplog)
    assert level == "WARNING"
    assert "5.1 ms each" in text
    assert "scrape_interval_s" in text

    scraper.pace.ask(1, 0.2)
    for _ in range(3):
        news.paced(scraper)
    assert [level for level, _ in said(caplog)] == ["INFO"]


def test_the_soft_limit_of_files_is_raised_to_the_hard_one():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        raise_file_limit()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert hard == before[1]
        assert soft == min(hard, file_limit.WANTED_FILES)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_too_few_files_for_a_fleet_are_told_with_the_cure(caplog):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
        tell_if_too_few_files(8)
        assert said(caplog) == []
        tell_if_too_few_files(512)
        [(_, text)] = said(caplog)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert "512 endpoints need some 2048 open files, and 1024 are allowed" in text
    assert "LimitNOFILE" in text
