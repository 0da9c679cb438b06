"""Metric: one declaration, from which both the metric and its documentation are made."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
SHORT_SECONDS = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)
RATIOS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0)


class MetricKind(StrEnum):
    """As Prometheus names it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        text: what it says.
        action: what an operator does when it moves.
        buckets: upper bounds, of a histogram.
    """

    name: str
    kind: MetricKind
    labels: tuple[str, ...]
    text: str
    action: str
    buckets: tuple[float, ...] = ()


def counter(name: str, labels: tuple[str, ...], text: str, action: str) -> Metric:
    return Metric(name, MetricKind.COUNTER, labels, text, action)


def gauge(name: str, labels: tuple[str, ...], text: str, action: str) -> Metric:
    return Metric(name, MetricKind.GAUGE, labels, text, action)


def histogram(
    name: str, labels: tuple[str, ...], text: str, action: str, buckets: tuple[float, ...]
) -> Metric:
    return Metric(name, MetricKind.HISTOGRAM, labels, text, action, buckets)


POOL = ("pool",)
ENDPOINT = ("pool", "endpoint")
