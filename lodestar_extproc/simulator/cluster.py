"""VirtualCluster: engines and routers in virtual time, through the eyes of the real edge.

The routers are those of `serve`, unchanged. They are told what `envoy/envoy.yaml` lets them see, as
late as it does: a first token, an end with the host that served, a scrape now and then.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from lodestar_extproc.completion import Completion, FirstToken, Outcome
from lodestar_extproc.decision import Decision, Reason
from lodestar_extproc.endpoint import Endpoint, EndpointMetrics
from lodestar_extproc.request import BLOCK_BYTES, InferenceRequest, RequestKind
from lodestar_extproc.router import Router
from lodestar_extproc.simulator.accelerators import EngineSpec
from lodestar_extproc.simulator.arrival import VirtualRequest, Workload
from lodestar_extproc.simulator.engine import Engine, EngineEvent, EventKind
from lodestar_extproc.simulator.state import BLOCK_TOKENS

Action: TypeAlias = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Edge:
    """What the edge delivers, and how late.

    Attributes:
        first_token_delay_s: from the engine's first token to ours.
        end_delay_min_s, end_delay_max_s: from the end of an answer to its access log entry.
        scrape_interval_s: between two scrapes of every engine; inf for none.
        token_estimate_ratio: estimated over true prompt tokens.
        abort_ratio: share of the clients that leave after *abort_after_s* without a first token.
    """

    first_token_delay_s: float = 0.002
    end_delay_min_s: float = 0.05
    end_delay_max_s: float = 0.25
    scrape_interval_s: float = 0.2
    token_estimate_ratio: float = 1.0
    abort_ratio: float = 0.0
    abort_after_s: float = 2.0


@dataclass(slots=True)
class RequestRecord:
    """What became of one request; times in seconds, NaN where they never came.

    Attributes:
        ttft_s: from arrival to the first token, at the client.
        expected_ttft_s: as predicted for the endpoint chosen; NaN where nothing was.
    """

    arrived_s: float
    prompt_tokens: int
    output_tokens: int
    endpoint: int
    reason: Reason
    expected_ttft_s: float = float("nan")
    ttft_s: float = float("nan")
    e2e_s: float = float("nan")
    cached_tokens: int = 0
    failed: bool = False


@dataclass(slots=True)
class _Live:
    """A request between arrival and end."""

    request: VirtualRequest
    router: Router
    decision: Decision
    record: RequestRecord
    number: int
    attempts: int = 1


@dataclass(slots=True)
class Machine:
    """One engine at one address, and what is wrong with it.

    Attributes:
        refusing: answers nothing; a request for it goes to the next candidate.
    """

    endpoint: Endpoint
    engine: Engine
    refusing: bool = False


class VirtualCluster:
    """Runs a workload through routers and engines.

    Args:
        machines: every engine that ever takes part; routers know them by their fleets.
        routers: each request takes one of them at random.
        seed: of delays, aborts and the choice of router.
    """

    def __init__(
        self,
        machines: Sequence[Machine],
        routers: Sequence[Router],
        *,
        edge: Edge | None = None,
        seed: int = 0,
    ) -> None:
        self.machines = list(machines)
        self.records: list[RequestRecord] = []
        self.now_s = 0.0
        self._routers = list(routers)
        self._edge = Edge() if edge is None else edge
        self._rng = random.Random(seed)
        self._agenda: list[tuple[float, int, Action]] = []
        self._n_planned = 0
        self._live: dict[int, _Live] = {}
        self._by_address = {m.endpoint.address: i for i, m in enumerate(self.machines)}

    def plan(self, at_s: float, action: Action) -> None:
        """Do *action* at *at_s*; equal times in the order of planning."""
        self._n_planned += 1
        heapq.heappush(self._agenda, (at_s, self._n_planned, action))

    def run(self, workload: Workload, n_requests: int) -> list[RequestRecord]:
        """The first *n_requests* of *workload*, until the last has ended."""
        self._workload, self._n_left = workload, n_requests
        self._arrivals = iter(workload)
        self._await_next_arrival()
        if self._edge.scrape_interval_s < float("inf"):
            self.plan(0.0, self._scrape)
        while True:
            due_s = self._agenda[0][0] if self._agenda else float("inf")
            engines_s = min(m.engine.next_event_s() for m in self.machines)
            if engines_s <= due_s and engines_s < float("inf"):
                # An answer may bring the next turn of its session before anything else is due.
                self._advance(engines_s if workload.has_turns else due_s)
            elif self._agenda:
                self.now_s, _, action = heapq.heappop(self._agenda)
                action()
            else:
                return self.records

    # -- arrivals ---------------------------------------------------------------------------------

    def _await_next_arrival(self) -> None:
        request = next(self._arrivals, None) if self._n_left > 0 else None
        if request is not None:
            self.plan(request.at_s, lambda: self._arrive_and_await_next(request))

    def _arrive_and_await_next(self, request: VirtualRequest) -> None:
        self._arrive(request)
        self._await_next_arrival()

    def _arrive(self, request: VirtualRequest) -> None:
        if self._n_left <= 0:
            return
        self._n_left -= 1
        router = self._rng.choice(self._routers) if len(self._routers) > 1 else self._routers[0]
        prompt = seen_by_the_router(request, self._edge.token_estimate_ratio)
        decision = router.route(prompt, request_id="", at_s=self.now_s)
        number = len(self.records)
        record = RequestRecord(
            self.now_s, request.prompt_tokens, request.output_tokens, -1, decision.ranking.reason
        )
        if decision.ranking.predicted_ttft_s is not None:
            record.expected_ttft_s = float(decision.ranking.predicted_ttft_s[decision.chosen])
        self.records.append(record)
        self._live[number] = _Live(request, router, decision, record, number)
        self._submit(self._live[number])
        if self._edge.abort_ratio > self._rng.random():
            self.plan(self.now_s + self._edge.abort_after_s, lambda: self._abort(number))

    def _submit(self, live: _Live) -> None:
        """Send it to the first candidate that takes it, as Envoy retries."""
        for attempt, address in enumerate(live.decision.addresses, start=1):
            machine = self.machines[self._by_address[address]]
            if machine.refusing:
                continue
            live.attempts, live.record.endpoint = attempt, self._by_address[address]
            machine.engine.submit(
                live.number,
                live.request.block_ids,
                live.request.prompt_tokens,
                live.request.output_tokens,
                self.now_s,
            )
            return
        live.record.failed = True
        self._report_end(live, Outcome.FAILED, served=live.decision.addresses[-1])

    def _abort(self, number: int) -> None:
        live = self._live.get(number)
        if live is None or not np.isnan(live.record.ttft_s):
            return
        self.machines[live.record.endpoint].engine.abort(number)
        live.record.failed = True
        served = self.machines[live.record.endpoint].endpoint.address
        self._report_end(live, Outcome.CLIENT_GONE, served=served)

    # -- what engines report ---------------------------------------------------------------------

    def _advance(self, until_s: float) -> None:
        for machine in self.machines:
            for event in machine.engine.advance(until_s):
                live = self._live.get(event.request)
                if live is None:
                    continue  # its client has left
                if event.kind == EventKind.FIRST_TOKEN:
                    self._first_token(live, event, machine.endpoint.address)
                else:
                    self._completed(live, event, machine.endpoint.address)

    def _first_token(self, live: _Live, event: EngineEvent, address: str) -> None:
        live.record.ttft_s = event.at_s - live.record.arrived_s
        live.record.cached_tokens = event.cached_tokens
        seen_s = event.at_s + self._edge.first_token_delay_s
        seen = FirstToken(live.decision.decision_id, seen_s, address)
        self.plan(seen_s, lambda: live.router.first_token(seen))

    def _completed(self, live: _Live, event: EngineEvent, address: str) -> None:
        live.record.e2e_s = event.at_s - live.record.arrived_s
        self._report_end(live, Outcome.SERVED, served=address, at_s=event.at_s)
        follow = self._workload.next_turn(live.request, event.at_s)
        if follow is not None:
            self.plan(follow.at_s, lambda: self._arrive(follow))

    def _report_end(
        self, live: _Live, outcome: Outcome, *, served: str, at_s: float | None = None
    ) -> None:
        """The access log entry, as late as it comes."""
        del self._live[live.number]
        ended_s = self.now_s if at_s is None else at_s
        edge, ttft_s = self._edge, live.record.ttft_s
        logged_s = ended_s + self._rng.uniform(edge.end_delay_min_s, edge.end_delay_max_s)
        completion = Completion(
            at_s=logged_s,
            outcome=outcome,
            decision_id=live.decision.decision_id,
            served=served,
            attempts=live.attempts,
            ttft_s=None if np.isnan(ttft_s) else ttft_s,
            duration_s=ended_s - live.record.arrived_s,
        )
        self.plan(logged_s, lambda: live.router.complete(completion))

    def _scrape(self) -> None:
        for machine in self.machines:
            gauges = machine.engine.gauges()
            metrics = EndpointMetrics(
                running_requests=float(gauges.running),
                waiting_requests=float(gauges.waiting),
                kv_usage_ratio=gauges.kv_usage_ratio,
                kv_capacity_tokens=machine.endpoint.kv_capacity_tokens,
                generation_tokens=float(gauges.generated_tokens),
            )
            for router in self._routers:
                router.fleet.record_metrics(machine.endpoint.address, metrics, self.now_s)
        if self._live or self._n_left > 0:
            self.plan(self.now_s + self._edge.scrape_interval_s, self._scrape)


def seen_by_the_router(request: VirtualRequest, token_estimate_ratio: float) -> InferenceRequest:
    """*request* as the edge would have parsed it: block hashes and an estimate of its length."""
    return InferenceRequest(
        model="simulated",
        kind=RequestKind.CHAT_COMPLETIONS,
        block_hashes=tuple(request.block_ids[: request.prompt_tokens // BLOCK_TOKENS].tolist()),
        prompt_bytes=request.prompt_tokens * BLOCK_BYTES // BLOCK_TOKENS,
        prompt_tokens=request.prompt_tokens * token_estimate_ratio,
        streaming=True,
    )


def machine(number: int, spec: EngineSpec, seed: int) -> Machine:
    """Engine *number* of a fleet, at an address of its own, as a scrape would describe it."""
    endpoint = Endpoint(
        address=f"10.0.{number // 250}.{number % 250 + 1}:8000",
        accelerator=spec.accelerator,
        kv_capacity_tokens=float(spec.kv_tokens),
        token_budget=float(min(spec.token_budget, 8192)),
        prefix_caching=spec.prefix_caching,
    )
    return Machine(endpoint, Engine(spec, seed))
