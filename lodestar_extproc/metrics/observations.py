"""Observations: one histogram by label values, as the hot path wants to write it."""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Collection, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from lodestar_extproc.metrics.children import others
from lodestar_extproc.metrics.metric import Metric


class Observations(Collector):
    """Counts what is observed in buckets, and shows it when the page is asked for.

    The client library's own takes two locks for each observation, and looks at every bucket.
    """

    def __init__(self, metric: Metric, registry: CollectorRegistry) -> None:
        self._metric = metric
        self._bounds = metric.buckets
        bounds = (*metric.buckets, math.inf)
        self._names = [floatToGoString(bound) for bound in bounds]  # type: ignore[no-untyped-call]
        self._counts: dict[tuple[str, ...], list[float]] = {}
        self._sums: dict[tuple[str, ...], float] = {}
        self._examples: dict[tuple[str, ...], dict[int, tuple[str, float, float]]] = {}
        registry.register(self)

    def observe(self, labels: tuple[str, ...], value: float, decision_id: str = "") -> None:
        """Count *value* in the first bucket that it does not exceed, with *decision_id* as example.

        The last example of each bucket is shown to who asks for OpenMetrics.
        """
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0.0] * len(self._names)
            self._sums[labels] = 0.0
            self._examples[labels] = {}
        bucket = bisect_left(self._bounds, value)
        counts[bucket] += 1.0
        self._sums[labels] += value
        if decision_id:
            self._examples[labels][bucket] = decision_id, value, time.time()

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """All of them, as the client library writes a page."""
        metric = self._metric
        family = HistogramMetricFamily(metric.name, metric.text, labels=metric.labels)
        for labels, counts in self._counts.items():
            examples = self._examples[labels]
            buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = [
                (name, count, _exemplar(*examples[i])) if i in examples else (name, count)
                for i, (name, count) in enumerate(zip(self._names, accumulate(counts), strict=True))
            ]
            family.add_metric(labels, buckets, self._sums[labels])
        yield family

    def keep(self, pool: str, endpoints: Collection[str]) -> None:
        """Of *pool* show none but these *endpoints* from now on."""
        for labels in others(self._counts, pool, endpoints):
            del self._counts[labels], self._sums[labels], self._examples[labels]


def _exemplar(decision_id: str, value: float, at_s: float) -> Exemplar:
    return Exemplar({"decision_id": decision_id}, value, at_s)
