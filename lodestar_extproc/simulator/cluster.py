"""VirtualCluster: engines and routers in virtual time, seen as Envoy lets a router see them.

The routers are those of `serve`, unchanged. They are told what `envoy/envoy.yaml` lets them see, as
late as it does: a first token, an end with the host that served, a scrape now and then.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from lodestar_extproc.completion import Completion, FirstToken, Outcome
from lodestar_extproc.decision import Decision, Reason
from lodestar_extproc.endpoint import EndpointMetrics
from lodestar_extproc.routing.admission import Ticket
from lodestar_extproc.routing.router import Router
from lodestar_extproc.simulator.arrival import VirtualRequest, Workload
from lodestar_extproc.simulator.engine import EventKind
from lodestar_extproc.simulator.envoy_signals import EnvoySignals
from lodestar_extproc.simulator.holding import LOOK_S, HeldArrival, HeldArrivals
from lodestar_extproc.simulator.machine import Machine
from lodestar_extproc.simulator.rack import Rack
from lodestar_extproc.simulator.record import RequestRecord

Action: TypeAlias = Callable[[], object]


@dataclass(slots=True)
class _Live:
    """A request between arrival and end."""

    number: int
    request: VirtualRequest
    router: Router
    decision: Decision
    record: RequestRecord
    attempts: int = 1
    reported_ttft_s: float | None = None


class VirtualCluster:
    """Runs a workload through routers and engines.

    Actions change engines or decide, so engines are advanced to each of them; reports only tell
    routers something, so all that are due before an action are delivered just before it.

    Args:
        machines: every engine that ever takes part; routers know them by their fleets.
        routers: each request takes one of them at random.
        seed: of delays, aborts, wrong labels and the choice of router.
    """

    def __init__(
        self,
        machines: Sequence[Machine],
        routers: Sequence[Router],
        *,
        signals: EnvoySignals | None = None,
        seed: int = 0,
    ) -> None:
        self.machines = tuple(machines)
        self.routers = tuple(routers)
        self.records: list[RequestRecord] = []
        self.now_s = 0.0
        self.arriving: VirtualRequest | None = None
        self._signals = EnvoySignals() if signals is None else signals
        self._rng = random.Random(seed)
        self._actions: list[tuple[float, int, Action]] = []
        self._reports: list[tuple[float, int, Callable[..., object], object]] = []
        self._n_planned = self._n_repeating = 0
        self._live: dict[int, _Live] = {}
        self._held = HeldArrivals(self._turn_came)
        self._look_at_s = -math.inf
        self._rack = Rack([m.engine for m in self.machines])
        self._addresses = [m.endpoint.address for m in self.machines]
        self._by_address = {address: i for i, address in enumerate(self._addresses)}

    def plan(self, at_s: float, action: Action) -> None:
        """Do *action* at *at_s*; equal times in the order of planning."""
        self._n_planned += 1
        heapq.heappush(self._actions, (at_s, self._n_planned, action))

    def repeat(self, every_s: float, action: Action) -> None:
        """Do *action* now and every so often, for as long as there is anything else to do."""
        self._n_repeating += 1
        self.plan(self.now_s, partial(self._repeat, every_s, action))

    def _repeat(self, every_s: float, action: Action) -> None:
        action()
        # A workload may end before all requests have come, so that none need be in flight or left.
        if self._live or len(self._actions) >= self._n_repeating:
            self.plan(self.now_s + every_s, partial(self._repeat, every_s, action))
        else:
            self._n_repeating -= 1

    def tell(self, at_s: float, hear: Callable[..., object], event: object) -> None:
        """Have *hear* told of *event* at *at_s*: it changes no engine."""
        self._n_planned += 1
        heapq.heappush(self._reports, (at_s, self._n_planned, hear, event))

    def run(self, workload: Workload, n_requests: int) -> list[RequestRecord]:
        """The first *n_requests* of *workload*, until the last has ended."""
        self._workload, self._n_left = workload, n_requests
        self._arrivals = iter(workload)
        self._await_next_arrival()
        if self._signals.scrape_interval_s < math.inf:
            self.repeat(self._signals.scrape_interval_s, self._scrape)
        while True:
            due_s = self._actions[0][0] if self._actions else math.inf
            safe_s = self._no_turn_before_s()
            self._advance(min(due_s, safe_s))
            if safe_s < due_s:
                continue
            self._deliver(due_s)
            if not self._actions:
                return self.records
            self.now_s, _, action = heapq.heappop(self._actions)
            action()

    def _no_turn_before_s(self) -> float:
        """Until when no answer can bring about an arrival that is not planned yet."""
        if self._workload.min_think_s == math.inf:
            return math.inf
        return self._rack.next_event_s() + self._workload.min_think_s

    # -- arrivals -------------------------------------------------------------------------------

    def _await_next_arrival(self) -> None:
        request = next(self._arrivals, None) if self._n_left > 0 else None
        if request is not None:
            self.plan(request.at_s, partial(self._arrive_and_await_next, request))

    def _arrive_and_await_next(self, request: VirtualRequest) -> None:
        self._arrive(request)
        self._await_next_arrival()

    def _arrive(self, request: VirtualRequest) -> None:
        if self._n_left <= 0:
            return
        self._n_left -= 1
        self.arriving = request
        router = self._rng.choice(self.routers) if len(self.routers) > 1 else self.routers[0]
        number = len(self.records)
        self.records.append(
            RequestRecord(
                self.now_s,
                request.prompt_tokens,
                request.output_tokens,
                Reason.POLICY,
                session=request.session,
                block_ids=request.block_ids,
            )
        )
        prompt = self._signals.parse(request, self._rng)
        routed = router.route_or_hold(prompt, request_id="", at_s=self.now_s)
        arrival = HeldArrival(number, request, router)
        if isinstance(routed, Decision):
            self._decided(arrival, routed)
        else:
            self._held.add(routed, arrival)
            self._look_at_held()

    def _decided(self, arrival: HeldArrival, decision: Decision) -> None:
        number, request, router = arrival
        record, ranking = self.records[number], decision.ranking
        record.reason = ranking.reason
        if ranking.predicted_ttft_s is not None:
            record.predicted_ttft_s = float(ranking.predicted_ttft_s[decision.chosen])
        live = self._live[number] = _Live(number, request, router, decision, record)
        self._submit(live)
        if self._signals.abort_ratio > 0 and self._rng.random() < self._signals.abort_ratio:
            left_at_s = max(self.now_s, record.arrived_s + self._signals.abort_after_s)
            self.plan(left_at_s, partial(self._abort, number))

    def _turn_came(self, arrival: HeldArrival, ticket: Ticket) -> None:
        held_s = self.now_s - ticket.came_at_s
        decision = arrival.router.route(
            ticket.request, request_id="", at_s=self.now_s, held_s=held_s
        )
        self._decided(arrival, decision)

    def _look_at_held(self) -> None:
        """Now, and for as long as any are held: again when there is news, and now and then."""
        self._held.look(self.now_s)
        if self._held and self._look_at_s <= self.now_s:
            self._look_at_s = self.now_s + LOOK_S
            self.plan(self._look_at_s, self._look_at_held)

    def _submit(self, live: _Live) -> None:
        """Send it to the first candidate that takes it, as Envoy retries."""
        request, order = live.request, live.decision.ranking.order
        endpoints = live.decision.candidates.snapshot.endpoints
        for attempt, index in enumerate(order[: self._signals.max_attempts], start=1):
            number = self._by_address[endpoints[index].address]
            live.attempts, live.record.endpoint = attempt, number
            if not self.machines[number].refusing:
                self.machines[number].engine.submit(
                    live.number,
                    request.block_ids,
                    request.prompt_tokens,
                    request.output_tokens,
                    self.now_s,
                )
                return
        self._fail(live, Outcome.FAILED)

    def _abort(self, number: int) -> None:
        live = self._live.get(number)
        if live is not None and math.isnan(live.record.ttft_s):
            self.machines[live.record.endpoint].engine.abort(number)
            live.record.e2e_s = self.now_s - live.record.arrived_s
            self._fail(live, Outcome.CLIENT_GONE)

    def decode_context_tokens(self, address: str) -> float:
        """Prompt and generated tokens of all that decode at *address*."""
        progress = self.machines[self._by_address[address]].engine.progress()
        return float(sum(self.records[r].prompt_tokens + n for r, n in progress if n > 0))

    def retire(self, router: Router) -> None:
        """No more requests come to *router*; it still hears of those it has."""
        self.routers = tuple(each for each in self.routers if each is not router)

    def crash(self, number: int) -> None:
        """Machine *number* breaks off all it holds and refuses from now on."""
        self.machines[number].refusing = True
        for live in [x for x in self._live.values() if x.record.endpoint == number]:
            self.machines[number].engine.abort(live.number)
            self._fail(live, Outcome.FAILED)

    def _fail(self, live: _Live, outcome: Outcome) -> None:
        live.record.failed = True
        self._report_end(live, outcome, self.now_s)

    # -- what engines and Envoy report -------------------------------------------------------

    def _advance(self, until_s: float) -> None:
        for number, kind, request, at_s, cached_tokens in self._rack.advance(until_s):
            live = self._live.get(request)
            if live is None:
                continue  # its client has left
            if kind == EventKind.FIRST_TOKEN:
                live.record.cached_tokens = cached_tokens
                self._first_token(live, at_s, self._addresses[number])
            else:
                self._completed(live, at_s)

    def _first_token(self, live: _Live, at_s: float, address: str) -> None:
        record, delay_s = live.record, self._signals.first_token_delay_s
        record.ttft_s, sent_at_s = at_s - record.arrived_s, live.decision.at_s
        ttft_s = self._signals.reported_ttft_s(at_s - sent_at_s + delay_s, self._rng)
        live.reported_ttft_s = ttft_s
        token = FirstToken(live.decision.decision_id, sent_at_s + ttft_s, address)
        self.tell(at_s + delay_s, live.router.first_token, token)
        if self._held:
            self.plan(at_s + delay_s, self._look_at_held)

    def _completed(self, live: _Live, at_s: float) -> None:
        live.record.e2e_s = at_s - live.record.arrived_s
        self._report_end(live, Outcome.SERVED, at_s)
        for follow in self._workload.next_turns(live.request, at_s):
            self.plan(follow.at_s, partial(self._arrive, follow))

    def _report_end(self, live: _Live, outcome: Outcome, ended_s: float) -> None:
        """The access log entry, as late as it comes."""
        del self._live[live.number]
        signals = self._signals
        logged_s = ended_s + self._rng.uniform(signals.end_delay_min_s, signals.end_delay_max_s)
        completion = Completion(
            at_s=logged_s,
            outcome=outcome,
            decision_id=live.decision.decision_id,
            served=self._addresses[live.record.endpoint],
            attempts=live.attempts,
            ttft_s=live.reported_ttft_s,
            duration_s=ended_s - live.record.arrived_s,
        )
        self.tell(logged_s, live.router.complete, completion)
        if self._held:
            self.plan(logged_s, self._look_at_held)

    def _deliver(self, until_s: float) -> None:
        reports = self._reports
        while reports and reports[0][0] <= until_s:
            _, _, hear, event = heapq.heappop(reports)
            hear(event)

    def _scrape(self) -> None:
        for machine, gauges in zip(self.machines, self._rack.gauges(), strict=True):
            if machine.refusing:
                continue
            endpoint, (running, waiting, usage, generated, queries, hits) = machine.endpoint, gauges
            capacity = endpoint.kv_capacity_tokens
            metrics = EndpointMetrics(running, waiting, usage, capacity, generated, queries, hits)
            for router in self.routers:
                router.fleet.record_metrics(endpoint.address, metrics, self.now_s)
