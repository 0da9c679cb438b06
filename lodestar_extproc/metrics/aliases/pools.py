"""PoolAliases: what is read of the pools when the page is asked for, under the names of others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from lodestar_extproc.endpoint import FloatArray
from lodestar_extproc.fleet.health_state import HealthState
from lodestar_extproc.metrics.aliases import pool_names as names
from lodestar_extproc.metrics.aliases.alias import Alias
from lodestar_extproc.metrics.aliases.renamed import renamed
from lodestar_extproc.metrics.aliases.requests import FLOW
from lodestar_extproc.routing.pool_view import PoolView

# Thresholds of llm-d's utilization detector, which gives its own gauge:
# https://llm-d.ai/docs/architecture/core/router/epp/flow-control
FULL_QUEUE, FULL_KV_RATIO = 5.0, 0.8
ROUTABLE = (HealthState.HEALTHY, HealthState.PROBATION)
"""States in which an endpoint takes its share of the load."""
Sample = tuple[tuple[str, ...], float]


class PoolAliases(Collector):
    """Asks for the pools as they are."""

    def __init__(self, pools: Callable[[], Sequence[PoolView]]) -> None:
        self._pools = pools

    def describe(self) -> Iterable[Family]:
        """Describe nothing beforehand: there may be no pools yet."""
        return ()

    def collect(self) -> Iterator[Family]:
        """Every family under each of its names."""
        samples: dict[Alias, list[Sample]] = {alias: [] for alias in names.POOL_ALIASES}
        for view in self._pools():
            for alias, labels, value in _told(view):
                samples[alias].append((labels, value))
        for alias in names.POOL_ALIASES:
            metric = alias.metric
            family = GaugeMetricFamily(metric.name, metric.text, labels=metric.labels)
            for labels, value in samples[alias]:
                family.add_metric(labels, value)
            yield from (renamed(family, name) for name in alias.names)


def _told(view: PoolView) -> Iterator[tuple[Alias, tuple[str, ...], float]]:
    """What is known of one pool; an engine that says nothing counts as idle, as theirs do."""
    snapshot, pool = view.snapshot, (view.pool,)
    waiting, running = _known(snapshot.waiting_requests), _known(snapshot.running_requests)
    usage = _known(snapshot.kv_usage_ratio)
    yield names.READY, pool, float(sum(state in ROUTABLE for state in view.states))
    for mean, spread, values in (
        (names.KV_USAGE, names.KV_USAGE_SPREAD, usage),
        (names.QUEUE_SIZE, names.QUEUE_SIZE_SPREAD, waiting),
        (names.POOL_RUNNING, names.POOL_RUNNING_SPREAD, running),
    ):
        yield mean, pool, float(values.mean()) if len(values) else 0.0
        yield spread, pool, float(values.std()) if len(values) else 0.0
    flow = (FLOW, "0", view.pool)
    yield names.FLOW_QUEUE, flow, float(waiting.sum())
    yield names.FLOW_BYTES, flow, 0.0
    full = np.maximum(waiting / FULL_QUEUE, usage / FULL_KV_RATIO)
    # Theirs is 1 for a pool without endpoints: there is nothing that could take a request.
    yield names.SATURATION, pool, float(full.mean()) if len(full) else 1.0
    for endpoint, n in zip(snapshot.endpoints, waiting.tolist(), strict=True):
        yield names.ENDPOINT_QUEUE, (view.pool, endpoint.address, endpoint.address), n


def _known(values: FloatArray) -> FloatArray:
    return np.nan_to_num(values, nan=0.0)
