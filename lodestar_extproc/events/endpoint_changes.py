"""EndpointChanges: what has changed of the endpoints of one pool since it was last told."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from lodestar_extproc.events.change import ChangeKind
from lodestar_extproc.events.event_log import EventLog
from lodestar_extproc.events.told_states import ToldStates
from lodestar_extproc.fleet.health_state import HealthState
from lodestar_extproc.learning.learner_status import EndpointStatus
from lodestar_extproc.routing.pool_view import PoolView

_OUT: Mapping[HealthState, tuple[ChangeKind, str]] = MappingProxyType(
    {
        HealthState.DOWN: (
            ChangeKind.ENDPOINT_DOWN,
            "is down: {problem}. It gets no request until a probe succeeds",
        ),
        HealthState.EJECTED: (
            ChangeKind.ENDPOINT_EJECTED,
            "is ejected, for a while: requests to it failed, broke off or stood still",
        ),
        HealthState.COOLING: (
            ChangeKind.ENDPOINT_REFUSED,
            "is left for a while: it refuses what others serve, or answers with nothing",
        ),
        HealthState.FROZEN: (
            ChangeKind.ENDPOINT_FROZEN,
            "is frozen: it holds requests and gives no token, while others do",
        ),
        HealthState.SLEEPING: (
            ChangeKind.ENDPOINT_SLEEPING,
            "sleeps, as its engine says. It gets no request until it is awake",
        ),
    }
)
ALL_OUT = frozenset({HealthState.DOWN, HealthState.FROZEN, HealthState.SLEEPING})
"""States that do not end by themselves; an ejection does, within seconds."""
NO_ANSWER = "its health probes fail"


def whole_outage(view: PoolView) -> str:
    """Why no endpoint of the pool can serve, in words; empty where one can, or there is none."""
    if not view.states or not ALL_OUT.issuperset(view.states):
        return ""
    counts = [f"{view.states.count(state)} {state}" for state in dict.fromkeys(view.states)]
    return f"all {len(view.states)} endpoints of pool {view.pool} are out: {', '.join(counts)}"


class EndpointChanges:
    """Tells *events* of joining and leaving, health, doubt and drift."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._told = ToldStates()
        self._drifts: dict[str, int] = {}
        self._problems: dict[str, str] = {}

    def found(self, address: str, problem: str) -> None:
        """What a probe of *address* found wrong, for whoever asks why it is down."""
        self._problems[address] = problem

    def observe(self, view: PoolView, at_s: float) -> None:
        """Tell what is new in *view*."""
        known = {status.address: status for status in view.learner.endpoints}
        states = dict(zip((e.address for e in view.snapshot.endpoints), view.states, strict=True))
        self._members(view.pool, states, at_s)
        for address, state in states.items():
            self._health(view.pool, address, state, at_s)
            if address in known:
                self._learned(view, known[address], at_s)
        self._outage(view, at_s)

    def _members(self, pool: str, states: Mapping[str, HealthState], at_s: float) -> None:
        before = self._told.of("members")
        if before is None:
            self._told.begin("members", frozenset(states), at_s)
            for address in states:
                self._told.begin(("health", address), HealthState.HEALTHY, at_s)
            return
        assert isinstance(before, frozenset)
        for address in states.keys() - before:
            self._told.begin(("health", address), HealthState.HEALTHY, at_s)
            text = f"endpoint {address} has joined, cold: nothing is known of it yet"
            self._events.tell(ChangeKind.ENDPOINT_JOINED, text, pool=pool, endpoint=address)
        for address in before - states.keys():
            for about in ("health", "doubt"):
                self._told.forget((about, address))
            self._drifts.pop(address, None)
            self._problems.pop(address, None)
            text = f"endpoint {address} has left"
            self._events.tell(ChangeKind.ENDPOINT_LEFT, text, pool=pool, endpoint=address)
        self._told.begin("members", frozenset(states), at_s)

    def _health(self, pool: str, address: str, state: HealthState, at_s: float) -> None:
        key = ("health", address)
        if state is HealthState.JOINING:  # told as it joined
            return
        if state is HealthState.PROBATION:
            # After requests that failed it is out until one succeeds; after all else it is in.
            if self._told.of(key) in (HealthState.EJECTED, HealthState.COOLING):
                return
            state = HealthState.HEALTHY
        if not self._told.turns(key, state, at_s):
            return
        if state not in _OUT:
            text = f"endpoint {address} is up again"
            self._events.tell(ChangeKind.ENDPOINT_UP, text, pool=pool, endpoint=address)
            return
        kind, words = _OUT[state]
        said = words.format(problem=self._problems.get(address) or NO_ANSWER)
        self._events.tell(kind, f"endpoint {address} {said}", pool=pool, endpoint=address)

    def _learned(self, view: PoolView, status: EndpointStatus, at_s: float) -> None:
        address = status.address
        before = self._drifts.get(address, status.drifts)
        self._drifts[address] = status.drifts
        if status.drifts > before:
            text = (
                f"endpoint {address} is no longer as fast, or as slow, as was learned (drift): "
                "it is learned anew"
            )
            self._events.tell(ChangeKind.DRIFT, text, pool=view.pool, endpoint=address)
        key = ("doubt", address)
        if not self._told.knows(key):
            self._told.begin(key, state=False, at_s=at_s)
        if not self._told.turns(key, status.doubtful, at_s):
            return
        error = "unknown" if status.error_ratio is None else f"{status.error_ratio:.0%}"
        if status.doubtful:
            text = (
                f"predictions for endpoint {address} are not believed any more: median error "
                f"{error}. Where it is ranked first, {view.settings.fallback_policy} decides"
            )
            kind = ChangeKind.ENDPOINT_DOUBTED
        else:
            text = f"predictions for endpoint {address} are believed again: median error {error}"
            kind = ChangeKind.ENDPOINT_BELIEVED
        self._events.tell(kind, text, pool=view.pool, endpoint=address)

    def _outage(self, view: PoolView, at_s: float) -> None:
        if not self._told.knows("outage"):
            self._told.begin("outage", state=False, at_s=at_s)
        words = whole_outage(view)
        if not self._told.turns("outage", bool(words), at_s):
            return
        if words:
            last = next(reversed(self._problems.values()), NO_ANSWER)
            text = (
                f"{words}. Requests go to any of them. What was found last: {last}. If they do "
                "serve, their health is elsewhere: see health_path, and whether engines are "
                "reached by TLS"
            )
            self._events.tell(ChangeKind.ALL_DOWN, text, pool=view.pool)
        elif view.states:
            self._events.tell(ChangeKind.SOME_UP, "an endpoint can serve again", pool=view.pool)
