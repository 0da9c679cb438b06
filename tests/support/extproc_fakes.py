"""A router and a listener that only remember, for tests of extproc."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from builders import a_fleet, an_endpoint, candidates_of
from lodestar_extproc.completion import AnswerReport, Completion, FirstToken, KeptAnswer
from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.decision import Candidates, Decision, Ranking
from lodestar_extproc.policies.random_choice import RandomChoice
from lodestar_extproc.request import InferenceRequest, Subset, name_key
from lodestar_extproc.routing.admission import AdmissionQueue, Outlook, Ticket
from lodestar_extproc.routing.awaited_keepers import AwaitedKeepers
from lodestar_extproc.routing.look_ups import Lookup, lookup_id
from lodestar_extproc.routing.routers import UnknownPool
from lodestar_extproc.routing.unserved import NoEndpoint, Overloaded


def a_decision(*addresses: str, decision_id: str = "pool.1", request_id: str = "") -> Decision:
    """*addresses* in their order; three of the builders' by default."""
    candidates = _candidates(addresses)
    return Decision(
        decision_id=decision_id,
        request_id=request_id,
        at_s=0.0,
        pool="pool",
        policy="fixed",
        candidates=candidates,
        ranking=Ranking(tuple(range(len(candidates)))),
    )


@cache
def _candidates(addresses: tuple[str, ...]) -> Candidates:
    fleet = a_fleet(3)
    if addresses:
        fleet.set_endpoints(an_endpoint(address=a) for a in addresses)
    return candidates_of(fleet)


@dataclass
class EngineRoom:
    """Whether engines have room for requests, which wait until they have."""

    has_room: bool = True
    queue: AdmissionQueue = field(init=False)

    def __post_init__(self) -> None:
        self.queue = AdmissionQueue(LiveSettings(PoolSettings()), lambda _, __: self.outlook())

    def outlook(self) -> Outlook:
        return Outlook("10.0.0.1:8000", 0.1, self.has_room)

    def let_in(self) -> None:
        self.has_room = True
        self.queue.changed()


@dataclass
class FakeRouters:
    """All pools and their only router in one; remembers what it was asked and told."""

    addresses: tuple[str, ...] = ("10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000")
    settings: PoolSettings = field(default_factory=PoolSettings)
    pools: tuple[str, ...] = ("pool",)
    policies: tuple[str, ...] = ("random",)
    to_the_end: bool = False
    bug: Exception | None = None
    excess_s: float | None = None
    only_model: str = ""
    n_decisions: int = 0
    routed: list[InferenceRequest] = field(default_factory=list)
    request_ids: list[str] = field(default_factory=list)
    stream_ids: list[str] = field(default_factory=list)
    asked: list[tuple[str | None, str | None, str | None]] = field(default_factory=list)
    first_tokens: list[FirstToken] = field(default_factory=list)
    keepers: dict[str, str] = field(default_factory=dict)
    owes: bool = False
    kept_answers: list[KeptAnswer] = field(default_factory=list)
    reports: list[AnswerReport] = field(default_factory=list)
    completions: list[Completion] = field(default_factory=list)
    held_s: list[float] = field(default_factory=list)
    engines: EngineRoom = field(default_factory=EngineRoom)

    def __post_init__(self) -> None:
        self.awaited = AwaitedKeepers(LiveSettings(self.settings), self)

    def get(self, pool):
        if pool is not None and pool not in self.pools:
            raise UnknownPool(pool)
        return self

    def override(self, pool, policy, cost):
        if policy is not None and policy not in self.policies:
            raise ValueError(policy)
        self.asked.append((pool, policy, cost))

    @property
    def headers(self) -> frozenset[str]:
        return frozenset((self.settings.session_header,))

    def bytes_per_token(self, model: str) -> float:
        return 4.0

    def tokens_per_medium(self, model: str) -> float:
        return 576.0

    def draw_target_model(self, named: str) -> str:
        return self.settings.model_rewrites.target(named, random.Random(0))

    def route(
        self,
        request: InferenceRequest,
        *,
        request_id: str,
        stream_id: str = "",
        at_s: float,
        subset: Subset | None = None,
        policy: None = None,
        held_s: float = 0.0,
    ) -> Decision:
        addresses = [a for a in self.addresses if subset is None or a in subset]
        if not addresses:
            raise NoEndpoint("none")
        if self.bug is not None:
            raise self.bug
        if request.is_sheddable and self.excess_s is not None:
            raise Overloaded(self.excess_s)
        self.routed.append(request)
        self.request_ids.append(request_id)
        self.stream_ids.append(stream_id)
        self.n_decisions += 1
        self.held_s.append(held_s)
        return a_decision(*addresses, decision_id=self.last_id, request_id=request_id)

    @property
    def admission(self) -> AdmissionQueue:
        return self.engines.queue

    def route_or_hold(self, request: InferenceRequest, **asked: Any) -> Decision | Ticket:
        outlook, at_s = self.engines.outlook(), asked["at_s"]
        ticket = self.admission.offer(request, None, RandomChoice(), outlook, at_s)
        return self.route(request, **asked) if ticket is None else ticket

    @property
    def last_id(self) -> str:
        return f"pool.{self.n_decisions}"

    def first_token(self, event: FirstToken) -> None:
        self.first_tokens.append(event)

    def progressed(self, decision_id: str, at_s: float) -> None:
        """Of no interest here."""

    def look_up(self, name: str, at_s: float, subset: Subset | None = None) -> Lookup:
        keepers = (self.keepers[name],) if name in self.keepers else ()
        allowed = tuple(a for a in keepers if subset is None or a in subset)
        return Lookup(allowed, lookup_id("pool", name_key(name) if name else 0))

    def knows(self, key: int) -> bool:
        return key in map(name_key, self.keepers)

    def may_be_told(self) -> bool:
        return self.owes

    def kept(self, event: KeptAnswer) -> None:
        self.kept_answers.append(event)

    def report(self, event: AnswerReport) -> None:
        self.reports.append(event)

    def complete(self, event: Completion) -> None:
        self.completions.append(event)

    def draw_full_observation(self, decision_id: str) -> bool:
        return self.to_the_end


@dataclass
class RecordingListener:
    """Everything the server said, in order."""

    heard: list[tuple] = field(default_factory=list)

    def stream_opened(self) -> None:
        self.heard.append(("opened",))

    def message(self, phase) -> None:
        self.heard.append(("message", str(phase)))

    def stream_closed(self, outcome) -> None:
        self.heard.append(("closed", str(outcome)))

    def messages_repeated(self, n_messages: int) -> None:
        self.heard.append(("repeated", n_messages))

    def body_over_budget(self, limit) -> None:
        self.heard.append(("over budget", str(limit)))

    def stream_failed(self, reason: str) -> None:
        self.heard.append(("failed", reason))

    def log_entry(self, outcome) -> None:
        self.heard.append(("log", None if outcome is None else str(outcome)))

    def log_unreadable(self) -> None:
        self.heard.append(("log", "unreadable"))

    def count(self, *what) -> int:
        return self.heard.count(what)
