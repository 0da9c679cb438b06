"""Histograms that are counted by us: what Prometheus reads of them is what the library writes."""

import random

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from lodestar_extproc.metrics.metric import SECONDS, histogram
from lodestar_extproc.metrics.observations import Observations

METRIC = histogram("seconds", ("pool", "address"), "What it says.", "What to do.", SECONDS)
A, B = ("pool", "10.0.0.1:8000"), ("pool", "[fd00::1]:8000")


@pytest.fixture
def ours() -> tuple[Observations, CollectorRegistry]:
    registry = CollectorRegistry()
    return Observations(METRIC, registry), registry


def pages_of(values: list[tuple[tuple[str, str], float]], ours) -> tuple[bytes, bytes]:
    """Ours, and the client library's of the same values."""
    observations, registry = ours
    other = CollectorRegistry()
    theirs = Histogram(METRIC.name, METRIC.text, METRIC.labels, registry=other, buckets=SECONDS)
    for labels, value in values:
        observations.observe(labels, value)
        theirs.labels(*labels).observe(value)
    return generate_latest(registry), generate_latest(other)


def without_creation(page: bytes) -> list[bytes]:
    return [line for line in page.splitlines() if b"_created" not in line]


def test_a_page_of_many_values_is_the_librarys(ours):
    rng = random.Random(1)
    values = [(rng.choice((A, B)), rng.lognormvariate(-2.0, 2.5)) for _ in range(500)]
    page, theirs = pages_of(values, ours)

    assert page.splitlines() == without_creation(theirs)


@pytest.mark.parametrize("value", [0.0, -1.0, SECONDS[0], SECONDS[3], SECONDS[-1], 31.0, 1e12])
def test_a_value_at_the_edge_of_a_bucket_is_in_the_librarys_bucket(value, ours):
    page, theirs = pages_of([(A, value)], ours)

    assert page.splitlines() == without_creation(theirs)


def test_before_any_value_there_is_nothing_but_the_description(ours):
    page, theirs = pages_of([], ours)

    assert page.splitlines() == without_creation(theirs)


def test_who_left_is_not_shown(ours):
    pages_of([(A, 1.0), (B, 2.0)], ours)
    ours[0].keep(A[0], {A[1]})
    page = generate_latest(ours[1]).decode()

    assert A[1] in page
    assert B[1] not in page
