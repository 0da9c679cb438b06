"""A pool as `serve` runs it, and probes: each drives it in one way and returns what was seen."""

from __future__ import annotations

import asyncio
import heapq
import random
import selectors
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Never

from builders import Recorder, a_prompt, a_request
from learning_worlds import LinearWorld
from lodestar_extproc.completion import Completion, FirstToken, Outcome
from lodestar_extproc.config import EndpointSettings, Member, Pool, PoolSettings
from lodestar_extproc.endpoint import Adapters, EndpointMetrics
from lodestar_extproc.extproc.events import Opening, Reply, RequestBody, RequestHeaders, RouteTo
from lodestar_extproc.extproc.exchange import Exchange
from lodestar_extproc.fleet.engine_client import EngineSilent
from lodestar_extproc.policies.random_choice import RandomChoice
from lodestar_extproc.request import RequestKind
from lodestar_extproc.routing.admission import Outlook
from lodestar_extproc.routing.assembly import new_router, policy_for_route
from lodestar_extproc.routing.routers import Routers
from lodestar_extproc.routing.unserved import Overloaded
from lodestar_extproc.service.upkeep import PoolUpkeep

S_PER_KTOKEN = {"fast": 0.1, "slow": 0.3}
KINDS = ("fast", "slow", "fast", "slow")
CHAT = b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'
KV_CAPACITY_TOKENS = 12_000.0


class DeadEngines:
    """A client whom nobody answers; it remembers what was asked for, how long."""

    def __init__(self) -> None:
        self.asked: set[tuple[str, float, object]] = set()

    async def get(self, url: str, *, within_s: float, tls: object, **_: object) -> Never:
        self.asked.add((url.rpartition(":8000")[2], within_s, tls))
        raise EngineSilent("nobody is there")


class PoolAtWork:
    """Router and upkeep of four endpoints.

    Attributes:
        heard: what the router told.
    """

    def __init__(self, settings: PoolSettings, endpoint: EndpointSettings | None = None) -> None:
        self.heard, self.engines = Recorder(), DeadEngines()
        self.pool = a_pool_of(settings, endpoint)
        self.router = new_router("engines", settings, self.pool.endpoints, listeners=[self.heard])
        self.routers = Routers([self.router], policy_for_route)
        client: Any = self.engines
        self.upkeep = PoolUpkeep(self.pool, self.router, client, clock=lambda: 0.0)
        self.upkeep.restore()
        self.router.set_endpoints(self.pool.endpoints)

    def tell(self, settings: PoolSettings, endpoint: EndpointSettings | None = None) -> None:
        """A reload: what the service does with new settings."""
        self.pool = a_pool_of(settings, endpoint)
        self.upkeep.adopt(self.pool)
        self.routers.forget_overrides()
        self.router.set_endpoints(self.pool.endpoints)


def a_pool_of(settings: PoolSettings, endpoint: EndpointSettings | None = None) -> Pool:
    of_kind = {
        kind: EndpointSettings(accelerator=kind, kv_capacity_tokens=KV_CAPACITY_TOKENS)
        for kind in KINDS
    }
    members = [Member(f"10.0.0.{i}", 8000, of_kind[kind]) for i, kind in enumerate(KINDS)]
    if endpoint is not None:
        members[0] = Member("10.0.0.0", 8000, endpoint)
    return Pool("engines", settings, members=tuple(members))


# -- probes -------------------------------------------------------------------------------------


def traffic(work: PoolAtWork, n: int = 300, noise: float = 1.1) -> list[object]:
    """What is decided of *n* requests, from none learned on, some of an adapter or sheddable."""
    rng, router, seen = random.Random(3), work.router, []
    prompts = [a_prompt(rng.choice((200, 800, 3000)), seed) for seed in range(20)]
    events: list[tuple[float, int, Callable[[], object]]] = []
    said = [Adapters(frozenset({"lora"}), frozenset(), 1), Adapters(frozenset("x"), frozenset(), 1)]
    for i, endpoint in enumerate(router.fleet.endpoints):
        tokens_per_s = 100.0 if endpoint.accelerator == "fast" else 10.0
        for at_s in range(-40, 1):
            metrics = EndpointMetrics(
                running_requests=1.0,
                generation_tokens=tokens_per_s * (at_s + 40),
                adapters=said[i > 0],
            )
            router.fleet.record_metrics(endpoint.address, metrics, at_s)
    at_s = 0.0
    for i in range(n):
        at_s += rng.expovariate(8.0)
        factor, output_s = noise ** rng.choice((-1, 1)), rng.uniform(1.0, 4.0)
        while events and events[0][0] <= at_s:
            heapq.heappop(events)[2]()
        request = a_request(
            rng.choice(prompts),
            model="lora" if i % 5 == 0 else "m",
            priority=-1 if i % 3 == 0 else 0,
        )
        try:
            decision = router.route(request, request_id="", at_s=at_s)
        except Overloaded:
            seen.append("shed")
            continue
        seen.append((decision.addresses, decision.ranking.reason, decision.shadows))
        chosen, uncached = decision.chosen, decision.candidates.uncached_on(decision.chosen)
        snapshot = decision.candidates.snapshot
        pace = S_PER_KTOKEN[snapshot.endpoints[chosen].accelerator] / 1e3
        ahead = float(snapshot.prefill_uncached_tokens[chosen])
        ttft_s = 0.03 + pace * (uncached + ahead) * factor
        end = Completion(
            at_s + ttft_s + output_s,
            Outcome.SERVED,
            decision_id=decision.decision_id,
            served=decision.address,
            response_code=200,
        )
        first = FirstToken(decision.decision_id, at_s + ttft_s, decision.address)
        heapq.heappush(events, (first.at_s, 2 * i, lambda e=first: router.first_token(e)))
        heapq.heappush(events, (end.at_s, 2 * i + 1, lambda e=end: router.complete(e)))
    return seen


def crowded(work: PoolAtWork, n: int = 900) -> list[object]:
    """Where *n* turns of sessions go that are half as many again as all caches hold."""
    prompts = [a_request(a_prompt(500, seed)) for seed in range(140)]
    generate: deque[str] = deque()
    seen: list[object] = []
    for i in range(n):
        at_s = i / 8
        decision = work.router.route(prompts[i % len(prompts)], request_id="", at_s=at_s)
        seen.append(decision.addresses)
        work.router.first_token(FirstToken(decision.decision_id, at_s + 0.1))
        generate.append(decision.decision_id)
        if len(generate) > 90:
            done = Completion(at_s, Outcome.SERVED, decision_id=generate.popleft())
            work.router.complete(done)
    return seen


def unread(work: PoolAtWork) -> list[object]:
    """Where requests go whose bodies cannot be read."""
    request = a_request(b"x" * 9000, kind=RequestKind.UNKNOWN)
    return [work.router.route(request, request_id="", at_s=0.1 * i).addresses for i in range(12)]


def on_the_stream(work: PoolAtWork) -> list[object]:
    """What Envoy is answered, and what is read of requests."""
    headers = {"x-session-id": "s", "x-other": "t", "x-llm-d-inference-objective": "other"}
    headers["x-slo-ttft-ms"] = "250"
    answers: list[Reply] = []
    for body, more, members in (
        (CHAT, {":path": "/ask"}, work.pool.endpoints),
        (CHAT, headers, work.pool.endpoints),
        (b"{", {}, work.pool.endpoints),
        (CHAT, {}, ()),
        (CHAT, {"test-epp-endpoint-selection": "10.0.0.3:8000"}, work.pool.endpoints),
    ):
        work.router.set_endpoints(members)
        exchange = Exchange(work.routers, Opening())
        sent = {":method": "POST", ":path": "/v1/chat/completions"} | more
        exchange.receive(RequestHeaders(at_s=0.0, headers=sent, end_of_stream=False))
        if not exchange.done:
            answers += exchange.receive(RequestBody(at_s=0.1, body=body, end_of_stream=True))
    named = [answer.addresses if isinstance(answer, RouteTo) else None for answer in answers]
    read = [decision.candidates.request for decision in work.heard.decisions]
    return [[type(answer) for answer in answers], named, read, work.routers.headers]


def asked_of_the_router(work: PoolAtWork) -> list[object]:
    """What an exchange asks beside a decision."""
    router = work.router
    watched = sum(router.draw_full_observation("") for _ in range(500))
    return [router.bytes_per_token("m"), router.draw_target_model("m"), watched]


def judged(work: PoolAtWork) -> list[object]:
    """How old a scrape may be, and what probes, silence and time say of endpoints and requests."""
    router, fleet, seen = work.router, work.router.fleet, []
    probed, silent, scraped = (endpoint.address for endpoint in fleet.endpoints[:3])
    fleet.record_metrics(scraped, EndpointMetrics(running_requests=3.0), 0.0)
    seen += [float(fleet.snapshot(at_s).running_requests[2]) == 3.0 for at_s in (1.0, 4.0, 60.0)]
    for healthy in (*[False] * 10, *[True] * 5):
        fleet.record_probe(probed, healthy, 70.0)
        seen.append(fleet.health.state(probed, 70.0))
    fleet.dispatch("d", a_request(), silent, uncached_tokens=1.0, at_s=100.0)
    for at_s in (105.0, 120.0, 200.0):
        fleet.snapshot(at_s)
        seen.append(fleet.health.state(silent, at_s))
    router.route(a_request(), request_id="", at_s=1000.0)
    for at_s in (1100.0, 2000.0, 9000.0):
        router.expire(at_s)
        seen.append(router.n_open)
    return seen


def remembered(work: PoolAtWork) -> float:
    """How much of more prompts than a cache holds is taken to be in it."""
    fleet = work.router.fleet
    prompts = [a_request(a_prompt(1000, seed)) for seed in range(30)]
    for i, prompt in enumerate(prompts):
        fleet.dispatch(f"d{i}", prompt, "10.0.0.0:8000", uncached_tokens=1.0, at_s=0.0)
    return sum(float(fleet.match(prompt, fleet.endpoints)[0][0]) for prompt in prompts)


def learned_since_training(work: PoolAtWork) -> int:
    """Of 30 samples, those that came after the last training began."""
    LinearWorld(KINDS).teach(work.router.learner, 30)
    work.router.learner.close()
    predictor: Any = work.router.learner.predictor
    n_new: int = predictor._n_new
    return n_new


def held(work: PoolAtWork) -> float | None:
    """For how long a request may wait that no engine has room for; None where it may not."""
    full = Outlook("10.0.0.0:8000", service_s=1.0, has_room=False)
    ticket = work.router.admission.offer(a_request(), None, RandomChoice(), full, 0.0)
    return None if ticket is None else ticket.limit_at_s


def saved(work: PoolAtWork) -> set[str]:
    """Checkpoints that are there once one was saved."""
    work.upkeep.save()
    path = work.router.settings.checkpoint_path
    return set() if path is None else {each.name for each in Path(path).parent.iterdir()}


def listened_to(work: PoolAtWork) -> list[object]:
    """Where engines are listened to for what they tell of their caches."""
    return [endpoint.kv_events for endpoint in work.router.fleet.endpoints]


def waits(work: PoolAtWork) -> list[object]:
    """What engines are asked, and how long each wait of the upkeep is meant to be."""
    loop = VirtualTime()
    with suppress(TimeoutError):
        loop.run_until_complete(asyncio.wait_for(work.upkeep.run(), 10.0))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    return [sorted(work.engines.asked, key=str), sorted(loop.waits)]


class VirtualTime(asyncio.SelectorEventLoop):
    """An event loop in which waiting takes no time.

    Attributes:
        waits: seconds of every wait that began.
    """

    def __init__(self) -> None:
        super().__init__(_Impatient(self._pass))
        self.waits: set[float] = set()
        self._now_s = 0.0

    def _pass(self, seconds: float) -> None:
        self._now_s += seconds

    def time(self) -> float:
        return self._now_s

    def call_at(self, when: float, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        self.waits.add(round(when - self._now_s, 6))
        return super().call_at(when, *args, **kwargs)


class _Impatient(selectors.DefaultSelector):  # type: ignore[misc]  (a variable)
    def __init__(self, passes: Callable[[float], None]) -> None:
        super().__init__()
        self._passes = passes

    def select(self, timeout: float | None = None) -> Any:
        if timeout is not None:
            self._passes(max(timeout, 0.0))
            timeout = 0.0
        return super().select(timeout)
