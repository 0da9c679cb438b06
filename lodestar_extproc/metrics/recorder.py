"""Metrics: counts what happens, and shows it with the state of the pools when Prometheus asks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics
from prometheus_client.registry import Collector

from lodestar_extproc.completion import Outcome
from lodestar_extproc.decision import Decision
from lodestar_extproc.gain.compared import Gain
from lodestar_extproc.kernel.compiled import FOUND
from lodestar_extproc.metrics import replicas, requests, streams
from lodestar_extproc.metrics.children import Children, Counts
from lodestar_extproc.metrics.collector import PoolCollector
from lodestar_extproc.metrics.exposition import page_in_form
from lodestar_extproc.metrics.gains import GainCollector
from lodestar_extproc.metrics.metric import Metric
from lodestar_extproc.metrics.observations import Observations
from lodestar_extproc.routing.ended_request import EndedRequest, ObservedFirstToken
from lodestar_extproc.routing.pool_view import PoolView
from lodestar_extproc.supervision import BackgroundTask


class Metrics:
    """Listens to the routers and to the streams; one event costs a few microseconds.

    Args:
        clock: monotonic seconds, the streams's.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        # A "_created" series beside each counter would double the page and says nothing here.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._clock = clock
        self._pools: Callable[[], Sequence[PoolView]] = tuple
        self._registry = registry = CollectorRegistry()
        self._counts: list[Counts] = []
        ProcessCollector(registry=registry)
        self._decisions = self._counted(requests.DECISIONS)
        self._priority_decisions = self._counted(requests.PRIORITY_DECISIONS)
        self._endpoint_decisions = self._counted(requests.ENDPOINT_DECISIONS)
        self._decision_seconds = Observations(requests.DECISION_SECONDS, registry)
        self._shadow_decisions = self._counted(requests.SHADOW_DECISIONS)
        self._prompt_tokens = self._counted(requests.PROMPT_TOKENS)
        self._predicted_hit_tokens = self._counted(requests.PREDICTED_HIT_TOKENS)
        self._reported_prompt_tokens = self._counted(requests.REPORTED_PROMPT_TOKENS)
        self._reported_hit_tokens = self._counted(requests.REPORTED_HIT_TOKENS)
        self._requests = self._counted(requests.REQUESTS)
        self._unused_decisions = self._counted(requests.UNUSED_DECISIONS)
        self._ignored_choices = self._counted(requests.IGNORED_CHOICES)
        self._retries = self._counted(requests.RETRIES)
        self._held_seconds = Observations(requests.HELD_SECONDS, registry)
        self._ttft = Observations(requests.TTFT_SECONDS, registry)
        self._predicted_ttft = Observations(requests.PREDICTED_TTFT_SECONDS, registry)
        self._ttft_error = Observations(requests.TTFT_ERROR_RATIO, registry)
        self._streams = self._counted(streams.STREAMS)
        self._open_streams = Children(streams.OPEN_STREAMS, registry)[()]
        self._messages = self._counted(streams.MESSAGES)
        self._repeated_messages = self._counted(streams.REPEATED_MESSAGES)
        self._bodies_over_budget = self._counted(streams.BODIES_OVER_BUDGET)
        self._stream_failures = self._counted(streams.STREAM_FAILURES)
        self._log_entries = self._counted(streams.LOG_ENTRIES)
        self._loop_lag = Children(streams.LOOP_LAG, registry)[()]
        self._config_reloads = self._counted(streams.CONFIG_RELOADS)
        self._journal_entries = self._counted(streams.JOURNAL_ENTRIES)
        self._handed_over = self._counted(replicas.HANDED_OVER)
        self._settled_early = self._counted(replicas.SETTLED_EARLY)
        self._share_state = Children(replicas.SHARE_STATE, registry)
        self._share_peers = Children(replicas.SHARE_PEERS, registry)
        self._frames = self._counted(replicas.FRAMES)
        self._task_failures = self._counted(streams.TASK_FAILURES)
        self._show_zeroes()
        Children(streams.BUILD_INFO, registry)[version("lodestar-extproc"), FOUND.name].set(1)

    def _counted(self, metric: Metric) -> Counts:
        counts = Counts(metric, self._registry)
        self._counts.append(counts)
        return counts

    def watch(self, pools: Callable[[], Sequence[PoolView]]) -> None:
        """Show these pools, as they are whenever the page is asked for. To be called once."""
        self._pools = pools
        self._registry.register(PoolCollector(pools))

    def watch_gains(self, gains: Callable[[], Mapping[str, Sequence[Gain]]]) -> None:
        """Show these, by pool, as they are whenever the page is asked for. To be called once."""
        self._registry.register(GainCollector(gains))

    def show(self, collector: Collector) -> None:
        """Show what *collector* tells, too."""
        self._registry.register(collector)

    def page(self, accept: str = "") -> bytes:
        """Everything, in the form that the header *accept* asks for."""
        return b"".join(self.pieces(accept)[1])

    def pieces(self, accept: str = "") -> tuple[str, Iterator[bytes]]:
        """Content type and page, of which no piece takes long."""
        pools = self._pools()
        self._show_zeroes(view.pool for view in pools)
        for counts in self._counts:
            counts.tell()
        for view in pools:
            self.forget_who_left(view)
        return page_in_form(self._registry, accept)

    # -- what routers report -------------------------------------------------------------------

    def decided(self, decision: Decision) -> None:
        """See `RouterListener`."""
        pool, candidates, chosen = (decision.pool,), decision.candidates, decision.chosen
        self._decisions[decision.pool, decision.policy, decision.ranking.reason] += 1
        self._priority_decisions[decision.pool, str(candidates.request.priority)] += 1
        self._endpoint_decisions[decision.pool, _address(decision, chosen)] += 1
        took_s = self._clock() - decision.at_s
        self._decision_seconds.observe(pool, took_s, decision.decision_id)
        if decision.held_s:
            self._held_seconds.observe(pool, decision.held_s)
        self._prompt_tokens[pool] += candidates.request.prompt_tokens
        self._predicted_hit_tokens[pool] += float(candidates.matched_tokens[chosen])
        for policy, index in decision.shadows:
            agrees = "true" if index == chosen else "false"
            self._shadow_decisions[decision.pool, policy, agrees] += 1

    def first_token(self, decision: Decision, first_token: ObservedFirstToken) -> None:
        """See `RouterListener`."""
        if first_token.is_timed:
            self._observe_ttft(decision, first_token.served, first_token.ttft_s)

    def ended(self, request: EndedRequest) -> None:
        """See `RouterListener`."""
        decision, event = request.decision, request.completion
        pool = (decision.pool,)
        self._requests[decision.pool, event.outcome] += 1
        if not request.used:
            self._unused_decisions[pool] += 1
        if request.is_ignored:
            self._ignored_choices[pool] += 1
        if event.attempts is not None and event.attempts > 1:
            self._retries[pool] += event.attempts - 1
        if event.prompt_tokens is not None:
            self._reported_prompt_tokens[pool] += event.prompt_tokens
            self._reported_hit_tokens[pool] += event.cached_tokens or 0
        if request.first_token is None and request.ttft_s is not None:
            self._observe_ttft(decision, request.served, request.ttft_s)

    def _observe_ttft(self, decision: Decision, served: str | None, ttft_s: float) -> None:
        if not decision.candidates.request.streaming:
            return  # an answer in one piece has no first token
        chosen = _address(decision, decision.chosen)
        address = chosen if served is None else served
        index = decision.chosen if address == chosen else decision.index_of(address)
        if index is None:
            return  # Envoy sent it to an endpoint that was no candidate
        waited_s = decision.held_s + ttft_s
        self._ttft.observe((decision.pool, address), waited_s, decision.decision_id)
        predicted = decision.ranking.predicted_ttft_s
        if predicted is not None and ttft_s > 0:
            predicted_s = float(predicted[index])
            key, example = (decision.pool, address), decision.decision_id
            self._predicted_ttft.observe(key, predicted_s, example)
            self._ttft_error.observe((decision.pool,), abs(ttft_s - predicted_s) / ttft_s)

    # -- what streams report --------------------------------------------------------------------

    def stream_opened(self) -> None:
        """See `StreamListener`."""
        self._open_streams.inc()

    def message(self, phase: str) -> None:
        """See `StreamListener`."""
        self._messages[(phase,)] += 1

    def stream_closed(self, verdict: str) -> None:
        """See `StreamListener`."""
        self._open_streams.dec()
        self._streams[(verdict,)] += 1

    def body_over_budget(self, limit: str) -> None:
        """See `StreamListener`."""
        self._bodies_over_budget[(limit,)] += 1

    def messages_repeated(self, n_messages: int) -> None:
        """See `StreamListener`."""
        self._repeated_messages[()] += n_messages

    def stream_failed(self, reason: str) -> None:
        """See `StreamListener`."""
        self._stream_failures[(reason,)] += 1

    def log_entry(self, outcome: str | None) -> None:
        """See `StreamListener`."""
        self._log_entries[(outcome or "useless",)] += 1

    def log_unreadable(self) -> None:
        """See `StreamListener`."""
        self._log_entries[("unreadable",)] += 1

    # -- what is heard of other replicas ------------------------------------------------------

    def handed_over(self, result: str) -> None:
        """Something heard of one replica's request by another was `handed`, `received`, `lost`."""
        self._handed_over[(result,)] += 1

    def settled_early(self, pool: str, n: int) -> None:
        """So many requests were given up before their time: their engines have long ended them."""
        self._settled_early[(pool,)] += n

    def share_state(self, pool: str, state: str, n_peers: int) -> None:
        """*pool* is shared so well, with so many others."""
        for each in replicas.SHARE_STATES:
            self._share_state[pool, each].set(each == state)
        self._share_peers[(pool,)].set(n_peers)

    def frames(self, pool: str, result: str, n: int = 1) -> None:
        """So many frames were `sent`, `received`, `lost` or `unreadable`."""
        self._frames[pool, result] += n

    # -- what the process reports --------------------------------------------------------------

    def loop_lag(self, seconds: float) -> None:
        """A timer of the event loop fired this late."""
        self._loop_lag.observe(seconds)

    def config_reloaded(self, result: str) -> None:
        """The configuration changed and was, or was in part, `applied` and so on."""
        self._config_reloads[(result,)] += 1

    def journal_entries(self, result: str, n: int) -> None:
        """So many entries of the journal were `written` or `dropped`."""
        self._journal_entries[(result,)] += n

    def task_failed(self, task: str) -> None:
        """A background task failed, and goes on."""
        self._task_failures[(task,)] += 1

    def _show_zeroes(self, pools: Iterable[str] = ()) -> None:
        """Show from the start what alerts watch: a series that begins at 1 has never increased."""
        for result in streams.RELOAD_RESULTS:
            self._config_reloads[(result,)] += 0
        for task in BackgroundTask:
            self._task_failures[(task,)] += 0
        for reason in ("protocol", "internal"):
            self._stream_failures[(reason,)] += 0
        for result in replicas.HANDOVER_RESULTS:
            self._handed_over[(result,)] += 0
        for pool in pools:
            self._unused_decisions[(pool,)] += 0
            self._settled_early[(pool,)] += 0
            self._ignored_choices[(pool,)] += 0
            for outcome in Outcome:
                self._requests[pool, outcome] += 0

    def forget_who_left(self, view: PoolView) -> None:
        """Endpoints come and go; their series must not pile up, whoever asks for the page."""
        present = {endpoint.address for endpoint in view.snapshot.endpoints}
        shown: tuple[Observations | Counts, ...] = (
            self._endpoint_decisions,
            self._ttft,
            self._predicted_ttft,
        )
        for each in shown:
            each.keep(view.pool, present)


def _address(decision: Decision, index: int) -> str:
    return decision.candidates.snapshot.endpoints[index].address
