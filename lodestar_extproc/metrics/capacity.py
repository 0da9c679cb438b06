"""What pools can take within their bound on TTFT: declared here, read whenever Prometheus asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from lodestar_extproc.gain.capacity_watch import CapacityWatch
from lodestar_extproc.metrics.metric import POOL, gauge

OFFERED = gauge(
    "lodestar_offered_requests_per_second",
    POOL,
    "Requests of the last two minutes that have a bound on TTFT and a prediction.",
    "It is the load; nothing is wrong when it moves.",
)
CAPACITY = gauge(
    "lodestar_capacity_requests_per_second",
    POOL,
    "The most of them that the endpoints take with 95 % within the bound, by what is predicted; "
    "absent without a bound (`ttft_slo_s`), before the predictor has 50 requests, and where more "
    "than 5 % would be late on an idle pool.",
    "Falling: prompts grow, caches hit less, or an endpoint left. See docs/autoscaling.md.",
)
USED = gauge(
    "lodestar_capacity_used_ratio",
    POOL,
    "The one over the other.",
    "Above 0.8 it is time for another endpoint; above 1 requests come too late.",
)


class CapacityCollector(Collector):
    """Asks for the capacity of every pool as it is."""

    def __init__(self, watches: Mapping[str, CapacityWatch]) -> None:
        self._watches = watches

    def describe(self) -> Iterable[Family]:
        """Describe nothing beforehand: it depends on settings."""
        return ()

    def collect(self) -> Iterator[Family]:
        """One family for each metric."""
        families = [
            GaugeMetricFamily(m.name, m.text, labels=POOL) for m in (OFFERED, CAPACITY, USED)
        ]
        for pool, watch in self._watches.items():
            told = watch.capacity()
            if told is not None:
                values = (told.offered_per_s, told.capacity_per_s, told.used_ratio)
                for family, value in zip(families, values, strict=True):
                    family.add_metric((pool,), value)
        yield from families
