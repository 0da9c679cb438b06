"""A router with everything listening to it, and the pools as they are then."""

from __future__ import annotations

from dataclasses import replace

from builders import a_request, a_router
from lodestar_extproc.completion import Completion, FirstToken, Outcome
from lodestar_extproc.endpoint import EndpointMetrics
from lodestar_extproc.fleet.engine_client import EngineClient
from lodestar_extproc.fleet.kv_events.events import BlocksStored
from lodestar_extproc.fleet.kv_events.following import EventCounts
from lodestar_extproc.fleet.scraper import Scraper
from lodestar_extproc.metrics import Metrics
from lodestar_extproc.routing.pool_view import PoolView, view_pool


class World:
    """Time passes only when told to."""

    def __init__(self, n: int = 3, *, listeners=(), **settings) -> None:
        self.now_s = 100.0
        self.metrics = Metrics(clock=lambda: self.now_s)
        self.router = a_router(n, listeners=[self.metrics, *listeners], **settings)
        self.scraper = Scraper(EngineClient(), self.router.fleet.record_metrics, self.router.live)
        self.scraper.set_endpoints(
            replace(e, metrics_url="http://127.0.0.1:1/metrics")
            for e in self.router.fleet.endpoints
        )
        for counts in self.scraper.counts.values():
            counts.succeeded, counts.failed, counts.last_failure = 7, 2, "refused"
        self.events: dict[str, EventCounts] = {}
        self.metrics.watch(lambda: [self.view()])

    def view(self) -> PoolView:
        return view_pool(self.router, self.scraper, self.now_s, self.events)

    def decide(self, request_id: str = "", took_s: float = 0.0, *, stream_id: str = "", **request):
        arrived_at_s = self.now_s
        self.now_s += took_s
        return self.router.route(
            a_request(**request), request_id=request_id, stream_id=stream_id, at_s=arrived_at_s
        )

    def first_token(self, decision, ttft_s: float = 0.5, served: str | None = None) -> None:
        at_s = decision.at_s + ttft_s
        self.router.first_token(FirstToken(decision.decision_id, at_s, served))

    def end(self, decision, outcome: Outcome = Outcome.SERVED, **changes) -> None:
        values = {"decision_id": decision.decision_id, "served": decision.addresses[0]} | changes
        self.router.complete(Completion(self.now_s, outcome, **values))

    def serve(self, n: int = 1, ttft_s: float = 0.5, **request) -> None:
        for _ in range(n):
            decision = self.decide(**request)
            self.first_token(decision, ttft_s)
            self.end(decision)
            self.now_s += 1.0

    def scraped(self, number: int = 1, **metrics) -> str:
        address = self.router.fleet.endpoints[number - 1].address
        self.router.fleet.record_metrics(address, EndpointMetrics(**metrics), self.now_s)
        return address

    def told_of_blocks(self, n_blocks: int, number: int = 1) -> str:
        """An engine tells that it has stored so many."""
        address = self.router.fleet.endpoints[number - 1].address
        stored = BlocksStored(list(range(n_blocks)), None, 16)
        self.router.fleet.record_cache_events(address, [stored], self.now_s)
        self.events[address] = EventCounts(messages=3, events=1, malformed=2, gaps=1)
        return address
