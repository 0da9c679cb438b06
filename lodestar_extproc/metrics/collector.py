"""PoolCollector: the state of endpoints and learners, read when Prometheus asks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from lodestar_extproc.decision import Reason
from lodestar_extproc.endpoint import FleetSnapshot, FloatArray
from lodestar_extproc.fleet.health_state import HealthState
from lodestar_extproc.metrics import endpoints as about_endpoints
from lodestar_extproc.metrics import kv_events as about_events
from lodestar_extproc.metrics import learning as about_learning
from lodestar_extproc.metrics import requests as about_requests
from lodestar_extproc.metrics.metric import Metric, MetricKind
from lodestar_extproc.routing.pool_view import PoolView

Sample = tuple[tuple[str, ...], float | None]
"""Label values and value; None, or NaN, leaves the series out."""

LEARNER_STATES = (Reason.MODEL, Reason.BURN_IN, Reason.UNTRUSTED)

_COLUMNS: tuple[tuple[Metric, Callable[[FleetSnapshot], FloatArray]], ...] = (
    (about_endpoints.ENDPOINT_PREFILLS, lambda s: s.prefill_requests),
    (about_endpoints.ENDPOINT_PREFILL_TOKENS, lambda s: s.prefill_uncached_tokens),
    (about_endpoints.ENDPOINT_DECODES, lambda s: s.decode_requests),
    (about_endpoints.ENGINE_RUNNING, lambda s: s.running_requests),
    (about_endpoints.ENGINE_WAITING, lambda s: s.waiting_requests),
    (about_endpoints.ENGINE_KV_USAGE, lambda s: s.kv_usage_ratio),
    (about_endpoints.ENGINE_KV_CAPACITY, lambda s: s.kv_capacity_tokens),
    (about_endpoints.SCRAPE_AGE, lambda s: s.scrape_age_s),
)


class PoolCollector(Collector):
    """Asks for the pools as they are, and shows them."""

    def __init__(self, pools: Callable[[], Sequence[PoolView]]) -> None:
        self._pools = pools

    def describe(self) -> Iterable[Family]:
        """Describe nothing beforehand: there may be no pools yet."""
        return ()

    def collect(self) -> Iterator[Family]:
        """One family for each metric, over all pools."""
        pools = self._pools()
        open_decisions = [((p.pool,), p.open_decisions) for p in pools]
        yield _family(about_requests.OPEN_DECISIONS, open_decisions)
        yield from _endpoints(pools)
        yield from _kv_events(pools)
        yield from _learners(pools)


def _endpoints(pools: Sequence[PoolView]) -> Iterator[Family]:
    addressed = [(p, e, (p.pool, e.address)) for p in pools for e in p.snapshot.endpoints]
    infos = [((*key, e.accelerator, e.engine), 1.0) for _, e, key in addressed]
    yield _family(about_endpoints.ENDPOINT_INFO, infos)
    states = [
        ((p.pool, endpoint.address, state), float(state is current))
        for p in pools
        for endpoint, current in zip(p.snapshot.endpoints, p.states, strict=True)
        for state in HealthState
    ]
    yield _family(about_endpoints.ENDPOINT_STATE, states)
    for metric, column in _COLUMNS:
        values = [value for p in pools for value in column(p.snapshot).tolist()]
        keys = [key for _, _, key in addressed]
        yield _family(metric, zip(keys, values, strict=True))
    beliefs = [ratio for p in pools for ratio in p.cache_belief_ratios]
    keys = [key for _, _, key in addressed]
    yield _family(about_endpoints.CACHE_BELIEF, zip(keys, beliefs, strict=True))
    lost = [((p.pool,), p.caches.lost_ratio) for p in pools]
    yield _family(about_endpoints.LOST_PREFIX, lost)
    outgrown = [((p.pool,), float(p.caches.outgrown)) for p in pools]
    yield _family(about_endpoints.CACHES_OUTGROWN, outgrown)
    scraped = [(key, p.scrapes[e.address]) for p, e, key in addressed if e.address in p.scrapes]
    intervals = [((p.pool,), p.scrape_interval_s) for p in pools]
    yield _family(about_endpoints.SCRAPE_INTERVAL, intervals)
    results = [((*key, "succeeded"), c.succeeded) for key, c in scraped]
    results += [((*key, "failed"), c.failed) for key, c in scraped]
    yield _family(about_endpoints.SCRAPES, results)


def _kv_events(pools: Sequence[PoolView]) -> Iterator[Family]:
    told = [((p.pool, address), view) for p in pools for address, view in p.kv_events.items()]
    yield _family(about_events.KV_EVENTS, [(key, v.events.events) for key, v in told])
    faults = [((*key, "malformed"), v.events.malformed) for key, v in told]
    faults += [((*key, "gap"), v.events.gaps) for key, v in told]
    faults += [((*key, "restart"), v.events.restarts) for key, v in told]
    yield _family(about_events.KV_EVENT_FAULTS, faults)
    yield _family(about_events.KV_BLOCKS, [(key, v.n_blocks) for key, v in told])
    prompts = [((*key, "joined"), v.following.joined) for key, v in told]
    prompts += [((*key, "unjoined"), v.following.unjoined) for key, v in told]
    yield _family(about_events.KV_PROMPTS, prompts)
    errors = [(key, v.following.error_tokens) for key, v in told]
    yield _family(about_events.KV_MATCH_ERROR, errors)
    compared = [(key, v.following.compared_tokens) for key, v in told]
    yield _family(about_events.KV_COMPARED, compared)


def _learners(pools: Sequence[PoolView]) -> Iterator[Family]:
    learners = [(p.pool, p.learner) for p in pools]
    states = [((p, s), float(s is each.reason)) for p, each in learners for s in LEARNER_STATES]
    yield _family(about_learning.LEARNER_STATE, states)
    predicting = [((p, each.predicting), 1.0) for p, each in learners]
    yield _family(about_learning.LEARNER_PREDICTING, predicting)
    samples = [((p, each.predictor), each.n_samples) for p, each in learners]
    yield _family(about_learning.LEARNER_SAMPLES, samples)
    ignored = [((p, "rejected"), each.rejected) for p, each in learners]
    ignored += [((p, "uninformative"), each.uninformative) for p, each in learners]
    yield _family(about_learning.LEARNER_IGNORED, ignored)
    yield _family(about_learning.LEARNER_ERROR, [((p,), s.error_ratio) for p, s in learners])
    trivial = [((p,), each.trivial_error_ratio) for p, each in learners]
    yield _family(about_learning.LEARNER_TRIVIAL_ERROR, trivial)
    coverage = [((p,), each.coverage_ratio) for p, each in learners]
    yield _family(about_learning.LEARNER_COVERAGE, coverage)
    known = [((p, e.address), e) for p, each in learners for e in each.endpoints]
    yield _family(about_learning.ENDPOINT_SAMPLES, [(key, e.n_samples) for key, e in known])
    yield _family(about_learning.ENDPOINT_ERROR, [(key, e.error_ratio) for key, e in known])
    yield _family(about_learning.ENDPOINT_DRIFTS, [(key, e.drifts) for key, e in known])


def _family(metric: Metric, samples: Iterable[Sample]) -> Family:
    made = CounterMetricFamily if metric.kind is MetricKind.COUNTER else GaugeMetricFamily
    family = made(metric.name, metric.text, labels=metric.labels)
    for labels, value in samples:
        if value is not None and math.isfinite(value):
            family.add_metric(labels, value)
    return family
