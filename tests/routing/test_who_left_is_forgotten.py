"""Endpoints come and go for as long as the service runs: who left is remembered by nobody.

Answers end, are blamed and are taught after their endpoint has left, so that a record may come back.
"""

from __future__ import annotations

import gc
import random
from dataclasses import replace

import pytest

from builders import a_prompt, a_request, a_router, an_endpoint
from lodestar_extproc.admin.history import PoolHistory
from lodestar_extproc.completion import AnswerForm, AnswerReport, Completion, FirstToken, Outcome
from lodestar_extproc.config import PoolSettings
from lodestar_extproc.endpoint import EndpointMetrics
from lodestar_extproc.events.event_log import EventLog
from lodestar_extproc.fleet.engine_client import EngineClient
from lodestar_extproc.fleet.scraper import Scraper
from lodestar_extproc.gain.capacity_watch import CapacityWatch
from lodestar_extproc.gain.gain_watch import GainWatch
from lodestar_extproc.metrics import Metrics
from lodestar_extproc.routing.pool_view import view_pool
from lodestar_extproc.service.event_watch import EventWatch

N_GENERATIONS = 40
OUTCOMES = (Outcome.SERVED, Outcome.FAILED, Outcome.CLIENT_GONE)


class ChurningPool:
    """Each time two endpoints serve, and leave before their answers have ended."""

    def __init__(self, **settings):
        self.metrics, history = Metrics(), PoolHistory()
        gains, capacity = GainWatch(PoolSettings), CapacityWatch(PoolSettings)
        listeners = [self.metrics, history, gains, capacity]
        self.router = a_router(2, burn_in_samples=0, listeners=listeners, **settings)
        self._scraper = Scraper(EngineClient(), self.router.fleet.record_metrics, self.router.live)
        # It looks once a second, whether anybody asks for a page or not.
        events = EventLog(wall_clock=lambda: 0.0)
        self._watch = EventWatch(events, ["pool"], self._views, self.metrics.forget_who_left)
        self.all_that_remember = [self.router, *listeners, self._watch.endpoints, self._scraper]
        self._rng = random.Random(1)
        self._at_s = 1.0

    def _views(self):
        return [view_pool(self.router, self._scraper, self._at_s)]

    async def _members(self, addresses):
        endpoints = [an_endpoint(address=address) for address in addresses]
        self.router.set_endpoints(endpoints)
        self._scraper.set_endpoints(
            [replace(e, metrics_url=f"http://{e.address}/metrics") for e in endpoints]
        )
        await self._watch.look()

    async def live(self, number: int) -> None:
        addresses = [f"10.1.{number}.{i}:8000" for i in (1, 2)]
        await self._members(addresses)
        for address in addresses:
            self.router.fleet.record_probe(address, True, self._at_s)
            metrics = EndpointMetrics(running_requests=1.0, generation_tokens=float(number))
            self.router.fleet.record_metrics(address, metrics, self._at_s)
        decisions = [self._route() for _ in range(6)]
        for decision in decisions[:4]:
            self._begin(decision, addresses)
        for decision in decisions[:2]:
            self._end(decision, addresses)
        await self._members([f"10.1.{number}.3:8000"])
        for decision in decisions[4:]:
            self._begin(decision, addresses)
        for decision in decisions[2:]:
            self._end(decision, addresses)
        await self._watch.look()
        for address in addresses:
            self.router.fleet.record_probe(address, False, self._at_s)
            self.router.fleet.record_metrics(address, EndpointMetrics(), self._at_s)

    def _route(self):
        self._at_s += 0.1
        request = a_request(a_prompt(100, self._rng.randrange(5)), ttft_slo_s=1.0)
        return self.router.route(request, request_id="r", at_s=self._at_s)

    def _begin(self, decision, addresses):
        self._at_s += 0.1
        served = self._rng.choice([decision.address, *addresses])
        self.router.first_token(FirstToken(decision.decision_id, self._at_s, served, watched=True))
        self.router.progressed(decision.decision_id, self._at_s)

    def _end(self, decision, addresses):
        self._at_s += 0.1
        known = decision.decision_id
        form = self._rng.choice([AnswerForm.STREAM, AnswerForm.NOTHING])
        self.router.report(AnswerReport(known, prompt_tokens=100, cached_tokens=10, form=form))
        self.router.complete(
            Completion(
                self._at_s,
                self._rng.choice(OUTCOMES),
                known,
                served=self._rng.choice([decision.address, *addresses]),
                attempts=self._rng.choice([1, 2]),
                ttft_s=0.1,
                response_code=self._rng.choice([200, 200, 429, 503]),
            )
        )


def remembered(root: object, beginning: str) -> set[str]:
    """Texts with that *beginning* in all that *root* holds."""
    found, seen, new = set(), set(), [root]
    while new:
        each = new.pop()
        if id(each) in seen or isinstance(each, type) or type(each).__name__ == "module":
            continue
        seen.add(id(each))
        if isinstance(each, str):
            found |= {each} if each.startswith(beginning) else set()
        elif isinstance(each, EventLog | GainWatch):
            continue  # of the last 500 changes and 2000 requests, whoever they are of
        elif not callable(each) or hasattr(each, "__self__"):
            new += gc.get_referents(each)
    return found


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"predictor": "bayesian_linear"},
        {"predictor": "residual"},
        {"predictor": "auto"},
        {"policy": "session_affinity", "shadow_policies": ("cache_cost", "prefix_cache")},
    ],
    ids=str,
)
async def test_of_endpoints_that_left_long_ago_nothing_is_remembered(settings):
    pool = ChurningPool(**settings)
    for number in range(N_GENERATIONS):
        await pool.live(number)
    await pool.live(N_GENERATIONS)

    addresses = remembered(pool.all_that_remember, "10.1.")
    generations = {int(address.split(".")[2]) for address in addresses}
    assert N_GENERATIONS in generations
    assert len(generations) <= 3, sorted(generations)
