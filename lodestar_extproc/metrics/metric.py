"""Metric: one declaration, from which both the metric and its documentation are made."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

# vLLM's own of vllm:time_to_first_token_seconds, so that both are comparable bucket by bucket:
# https://github.com/vllm-project/vllm/blob/main/vllm/v1/metrics/loggers.py
_MILLISECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75)
SECONDS = (*_MILLISECONDS, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0)
# Judgements: for our own work, from a decision by a fixed rule to a stall that clients notice.
SHORT_SECONDS = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)
# From a prediction that is nearly right to one that is off by five times what was observed.
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
