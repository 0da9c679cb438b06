"""RequestAliases: what is counted request by request, under the names of others."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from lodestar_extproc.completion import FIRST_ERROR_STATUS, Outcome
from lodestar_extproc.decision import Decision
from lodestar_extproc.metrics.aliases import names
from lodestar_extproc.metrics.aliases.alias import Alias
from lodestar_extproc.metrics.aliases.renamed import renamed
from lodestar_extproc.metrics.metric import MetricKind
from lodestar_extproc.metrics.observations import Observations
from lodestar_extproc.printable import printable
from lodestar_extproc.routing.ended_request import EndedRequest, ObservedFirstToken
from lodestar_extproc.routing.pool_view import PoolView

MAX_MODELS = 100
"""Clients name models as they like; further ones are counted as `OTHER`. A judgement."""
OTHER = "other"
FLOW = "default-flow"
"""What llm-d calls the flow of requests that name none; we part none."""
ERRORS = (Outcome.FAILED, Outcome.REFUSED, Outcome.EMPTY)
Labels = tuple[str, ...]


class RequestAliases(Collector):
    """A `RouterListener` that counts for the page; about ten microseconds a request.

    Args:
        clock: monotonic seconds, the router's.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._models: dict[tuple[str, str], tuple[str, str]] = {}
        self._counted: dict[Alias, Counter[Labels]] = {}
        self._observed: dict[Alias, Observations] = {}
        for alias in names.REQUEST_ALIASES:
            if alias.metric.kind is MetricKind.HISTOGRAM:
                self._observed[alias] = Observations(alias.metric, CollectorRegistry())
            else:
                self._counted[alias] = Counter()

    def decided(self, decision: Decision) -> None:
        """See `RouterListener`."""
        labels, pool = self._labels(decision), decision.pool
        candidates, took_s = decision.candidates, self._clock() - decision.at_s
        self._counted[names.REQUESTS][labels] += 1
        self._counted[names.RUNNING][labels] += 1
        self._counted[names.ATTEMPTS][self._attempt(decision)] += 1
        observed = self._observed
        observed[names.REQUEST_BYTES].observe(labels, candidates.request.prompt_bytes)
        ratio = float(candidates.matched_ratio[decision.chosen])
        observed[names.HIT_RATIO].observe((pool,), ratio)
        for alias in (names.SCHEDULER, names.CYCLE_S):
            observed[alias].observe((pool,), took_s)
        plugin = ("Scheduling", "policy", decision.policy, pool)
        observed[names.PLUGIN].observe(plugin, took_s)
        model, target, priority, flow, _ = labels
        queue = (flow, priority, pool, model, target, "Dispatched")
        observed[names.QUEUED_S].observe(queue, decision.held_s + took_s)
        observed[names.ENQUEUED_S].observe(queue, took_s)

    def first_token(self, decision: Decision, first_token: ObservedFirstToken) -> None:
        """See `RouterListener`."""
        if first_token.is_timed and decision.candidates.request.streaming:
            self._observe_ttft(decision, decision.held_s + first_token.ttft_s)

    def ended(self, request: EndedRequest) -> None:
        """See `RouterListener`."""
        decision, end = request.decision, request.completion
        labels, observed = self._labels(decision), self._observed
        self._counted[names.RUNNING][labels] -= 1
        code = end.response_code
        if end.outcome in ERRORS or (code is not None and code >= FIRST_ERROR_STATUS):
            error = "none" if code is None else str(code)
            self._counted[names.ERRORS][(*labels, error)] += 1
        observed[names.DURATION].observe(labels, request.waited_s)
        asked = decision.candidates.request
        tokens = asked.prompt_tokens if end.prompt_tokens is None else end.prompt_tokens
        observed[names.INPUT_TOKENS].observe(labels, tokens)
        if end.answer_bytes is not None:
            observed[names.RESPONSE_BYTES].observe(labels, end.answer_bytes)
        if end.cached_tokens is not None:
            observed[names.CACHED_TOKENS].observe(labels, end.cached_tokens)
        if end.output_tokens:
            observed[names.OUTPUT_TOKENS].observe(labels, end.output_tokens)
            observed[names.PER_TOKEN].observe(labels, request.waited_s / end.output_tokens)
        if request.first_token is None and request.ttft_s is not None and asked.streaming:
            self._observe_ttft(decision, decision.held_s + request.ttft_s)

    def describe(self) -> Iterable[Family]:
        """Describe nothing beforehand."""
        return ()

    def collect(self) -> Iterator[Family]:
        """Every family under each of its names."""
        for alias in names.REQUEST_ALIASES:
            family = self._family(alias)
            yield from (renamed(family, name) for name in alias.names)

    def forget_who_left(self, view: PoolView) -> None:
        """Endpoints come and go; their series must not pile up, whoever asks for the page."""
        present = {_host_and_port(endpoint.address) for endpoint in view.snapshot.endpoints}
        attempts = self._counted[names.ATTEMPTS]
        for labels in list(attempts):
            _, _, _, host, _, port, pool = labels
            if pool == view.pool and (host, port) not in present:
                del attempts[labels]

    def _family(self, alias: Alias) -> Family:
        observed, metric = self._observed.get(alias), alias.metric
        if observed is not None:
            return next(iter(observed.collect()))
        made = CounterMetricFamily if metric.kind is MetricKind.COUNTER else GaugeMetricFamily
        family = made(metric.name, metric.text, labels=metric.labels)
        for labels, n in self._counted[alias].items():
            family.add_metric(labels, float(n))
        return family

    def _observe_ttft(self, decision: Decision, ttft_s: float) -> None:
        labels, predicted_s = self._labels(decision), decision.predicted_ttft_s
        self._observed[names.TTFT].observe(labels, ttft_s)
        if predicted_s is not None:
            self._observed[names.PREDICTED_TTFT].observe(labels, predicted_s)

    def _labels(self, decision: Decision) -> Labels:
        request = decision.candidates.request
        named = request.model if request.named_model is None else request.named_model
        model, target = self._known(named, request.model)
        return model, target, str(request.priority), FLOW, decision.pool

    def _known(self, named: str, target: str) -> tuple[str, str]:
        """Both as labels may have them; of too many, none."""
        known = self._models.get((named, target))
        if known is not None:
            return known
        if len(self._models) >= MAX_MODELS:
            return OTHER, OTHER
        known = self._models[named, target] = printable(named), printable(target)
        return known

    def _attempt(self, decision: Decision) -> Labels:
        host, port = _host_and_port(decision.address)
        request = decision.candidates.request
        _, target = self._known(request.named_model or request.model, request.model)
        return "success", target, host, host, "", port, decision.pool


def _host_and_port(address: str) -> tuple[str, str]:
    host, _, port = address.rpartition(":")
    return host, port
