"""Fleet: the one owner of what is known about every endpoint's load, cache and health.

It counts, estimates and answers; it neither scrapes nor decides. One thread, no locks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.endpoint import Endpoint, EndpointMetrics, FleetSnapshot
from lodestar_extproc.fleet.adapters import AdapterTable
from lodestar_extproc.fleet.decode_speed import DecodeSpeed
from lodestar_extproc.fleet.expected_first_tokens import ExpectedFirstTokens
from lodestar_extproc.fleet.health import Health
from lodestar_extproc.fleet.health_state import HealthState, state_of_new
from lodestar_extproc.fleet.kv_events.events import AllCleared, CacheEvent
from lodestar_extproc.fleet.kv_events.followed_caches import FollowedCaches
from lodestar_extproc.fleet.load import InFlightRequest, LoadTable
from lodestar_extproc.fleet.overcount import Overcount
from lodestar_extproc.fleet.peer_requests import PeerRequests
from lodestar_extproc.fleet.prefix_caches import PrefixCaches, PrefixMatch
from lodestar_extproc.fleet.request_account import RequestAccount
from lodestar_extproc.fleet.routable import Routable
from lodestar_extproc.fleet.silence import Silence
from lodestar_extproc.fleet.stalls import StallDetector
from lodestar_extproc.request import InferenceRequest, Subset


class Fleet:
    """Load, cache contents and health of the endpoints of one pool.

    Args:
        endpoints: the fleet at start.
    """

    def __init__(self, live: LiveSettings, endpoints: Iterable[Endpoint] = ()) -> None:
        self._live = live
        self._health = Health(live)
        self._endpoints: tuple[Endpoint, ...] = ()
        self._declared: dict[str, Endpoint] = {}
        self._caches = PrefixCaches(live)
        self.adapters = AdapterTable()
        self.decode_speed = DecodeSpeed()
        self._load = LoadTable(self.decode_speed)
        self._in_flight: dict[str, InFlightRequest] = {}
        self._expected = ExpectedFirstTokens(self._load, self._in_flight)
        self.stalls = StallDetector()
        self._silence = Silence(live, self._load, self._health, self.stalls)
        self._routable = Routable(self._health, self._load, self._silence, self._in_flight)
        self._overcount = Overcount()
        self._account = RequestAccount(self._load, self._caches)
        self.peers = PeerRequests(self._load, self._caches, self._account)
        self.set_endpoints(endpoints)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """All members, routable or not."""
        return self._endpoints

    @property
    def has_levels(self) -> bool:
        """Whether not all of them are of one level of priority."""
        return self._routable.has_levels

    @property
    def health(self) -> Health:
        """Who may be chosen."""
        return self._health

    def set_endpoints(self, endpoints: Iterable[Endpoint]) -> tuple[list[Endpoint], list[str]]:
        """Adopt a new membership; returns who joined and which addresses left.

        A member that stays keeps its counters, cache and health; what its settings say of it may
        have changed. One that leaves takes its in-flight requests out of the count with it.
        """
        wanted = {e.address: e for e in endpoints}
        left = [a for a in self._declared if a not in wanted]
        joined = [e for a, e in wanted.items() if a not in self._declared]
        for address in left:
            self._health.remove(address)
            self.adapters.forget(address)
            self.decode_speed.forget(address)
            self._silence.forget(address)
            self._overcount.forget(address)
        others_serve = self._health.any_known_good
        for endpoint in joined:
            is_probed = endpoint.health_url is not None
            joins_as = state_of_new(is_probed=is_probed) if others_serve else None
            self._health.add(endpoint.address, joins_as)
        for key in [k for k, f in self._in_flight.items() if f.address not in wanted]:
            del self._in_flight[key]
        self._declared = wanted
        self._adopt()
        self.peers.adopt(wanted)
        return joined, left

    def _adopt(self) -> None:
        """Go by what is declared of the endpoints, and by what their engines have said since."""
        self._endpoints = tuple(map(self._caches.as_told, self._declared.values()))
        self._routable.adopt(self._endpoints)
        self._load.adopt(self._endpoints)
        self._caches.adopt(self._endpoints, self._load.kv_capacity_tokens)

    # -- what a decision reads ------------------------------------------------------------------

    def snapshot(
        self,
        at_s: float,
        subset: Subset | None = None,
        prompt: int | None = None,
        draw: float = 0.0,
    ) -> FleetSnapshot:
        """The routable endpoints of *subset* (None: of all) now.

        All of them if none is routable, none if there are none; where there are levels of
        priority, those of one level.

        Args:
            prompt: endpoints that failed it lately are left out, while others are there.
            draw: from 0 to 1, for the level.
        """
        self._expected.take_due(at_s)
        self._silence.judge(self._endpoints, self._in_flight.values(), at_s)
        columns, endpoints = self._routable.columns(at_s, subset, prompt, draw), self._endpoints
        if columns is not None:
            endpoints = tuple(endpoints[i] for i in columns)
        return self._load.view(endpoints, columns, at_s, self._live.current.scrape_stale_s)

    def everything(self, at_s: float) -> FleetSnapshot:
        """All endpoints, routable or not, for those who watch."""
        return self._load.view(self._endpoints, None, at_s, self._live.current.scrape_stale_s)

    def match(self, request: InferenceRequest, endpoints: Sequence[Endpoint]) -> PrefixMatch:
        """How much of the prompt each cache probably holds."""
        return self._caches.match(request, endpoints)

    def cache_belief_ratio(self, endpoint: Endpoint) -> float:
        """The share of what *endpoint*'s cache should hold that is believed to be there."""
        return self._caches.belief_ratio(endpoint)

    def is_member(self, address: str) -> bool:
        """Whether *address* is one of the endpoints, in whatever health."""
        return address in self._declared

    def is_up(self, address: str, at_s: float) -> bool:
        """Whether *address* is a member, and neither down nor ejected."""
        return self._health.state(address, at_s) not in (HealthState.DOWN, HealthState.EJECTED)

    # -- requests in flight ---------------------------------------------------------------------

    @property
    def n_in_flight(self) -> int:
        """Requests dispatched and not yet released."""
        return len(self._in_flight)

    def at_rest(self, address: str) -> bool:
        """Whether the engine at *address* has nothing to do, by our counts and its last page."""
        return self._load.at_rest(address)

    def overcounted(self, at_s: float) -> list[str]:
        """Ids of requests that are over, as their engines show; to be asked once a second."""
        return self._overcount.look(self._in_flight, self.everything(at_s))

    def dispatch(
        self,
        decision_id: str,
        request: InferenceRequest,
        address: str,
        *,
        uncached_tokens: float,
        at_s: float,
        expected_first_token_at_s: float | None = None,
    ) -> None:
        """Count *request* as in prefill at *address*, and its blocks as cached there.

        Args:
            expected_first_token_at_s: when to take the first token as given, for a request whose
                first token nobody will see; None where it is seen.
        """
        if address not in self._declared or decision_id in self._in_flight:
            return
        sent = InFlightRequest(address, request, uncached_tokens, at_s)
        self._in_flight[decision_id] = sent
        self._account.begin(decision_id, sent, at_s)
        if expected_first_token_at_s is not None:
            self._expected.expect(decision_id, expected_first_token_at_s)

    def first_token(
        self,
        decision_id: str,
        at_s: float,
        served: str | None = None,
        *,
        watched: bool = False,
    ) -> None:
        """The first token came from *served* (None: from where it was sent). Idempotent.

        Args:
            watched: every further part of the answer will be told to `stalls`.
        """
        sent = self._in_flight.get(decision_id)
        if sent is None:
            return
        if sent.first_token_at_s is None:
            self._account.first_token(decision_id, sent, at_s, served, self._declared)
        self._load.saw_first_token(sent.address, at_s)
        self._health.first_token(sent.address, at_s)
        self.stalls.first_token(sent.address, at_s)
        if watched:
            self.stalls.watch(decision_id, sent.address, at_s)

    def goes_on(self, decision_id: str, at_s: float, expected_first_token_at_s: float) -> None:
        """The request is over, and the engine computes on: nothing of that will be seen."""
        sent = self._in_flight.get(decision_id)
        if sent is not None:
            sent.in_background = True
            self.stalls.released(decision_id, sent.address, at_s, whole=False)
            self._expected.expect(decision_id, expected_first_token_at_s)

    def release(
        self,
        decision_id: str,
        at_s: float,
        *,
        served: str | None = None,
        prompt_computed: bool = True,
        prompt_tokens: int | None = None,
        cached_ratio: float | None = None,
        whole: bool = True,
    ) -> None:
        """Give back all that `dispatch` took. Idempotent.

        Args:
            prompt_tokens, cached_ratio: by the engine's usage; None where it did not say.
            served: who answered; None where it was sent, or where its first token came from.
            prompt_computed: False when the prompt never reached an engine's cache.
            whole: an answer came to its end.
        """
        sent = self._in_flight.pop(decision_id, None)
        if sent is None:
            return
        if self.stalls.released(decision_id, sent.address, at_s, whole=whole):
            self._health.trial_failed(sent.address, at_s)
        self._account.end(decision_id, sent)
        if not self._load.waits(sent.address):
            self._health.gave_up(sent.address, at_s)
        if not prompt_computed:
            self._caches.forget(sent.address, sent.request, sent.held)
            return
        self._account.computed(sent, at_s, served, self._declared)
        self._caches.let_go(sent.address, sent.held)
        self._account.cached(sent, at_s, prompt_tokens, cached_ratio)
        if cached_ratio is not None:
            found_tokens = cached_ratio * sent.request.prompt_tokens
            self._caches.reported(sent.address, sent.held.expected_tokens, found_tokens)

    # -- what is observed of endpoints -------------------------------------------------------------

    def record_metrics(self, address: str, metrics: EndpointMetrics, at_s: float) -> None:
        """A scrape of *address* succeeded."""
        if address not in self._declared:
            return
        self.adapters.report(address, metrics.adapters)
        self.stalls.scraped(address, metrics, at_s)
        restarted = self._load.scraped(address, metrics, at_s)
        falls_asleep = self._health.slept(address, asleep=metrics.awake == 0)
        if restarted or falls_asleep:  # neither keeps a KV cache
            self._caches.clear(address)
        if self._caches.scraped(address, metrics):
            self._adopt()

    def record_probe(self, address: str, healthy: bool, at_s: float) -> None:  # noqa: FBT001
        """An active probe of *address* ended."""
        was_down = self._health.state(address, at_s) is HealthState.DOWN
        self._health.probed(address, healthy=healthy)
        # Slow to answer is not restarted: known counters tell which, in `record_metrics`.
        if was_down and healthy and not self._load.counted(address):
            self._caches.clear(address)

    def record_cache_events(self, address: str, events: Iterable[CacheEvent], at_s: float) -> None:
        """The engine at *address* told of its blocks."""
        self._caches.told(address, events, at_s)

    def cache_events_lost(self, address: str, *, restarted: bool) -> None:
        """What the engine at *address* told has a gap, or it has begun anew with an empty cache."""
        if restarted:
            self._caches.told(address, [AllCleared()], 0.0)
        else:
            self._caches.followed.forget(address)

    @property
    def followed(self) -> FollowedCaches:
        """Caches whose engines tell of them."""
        return self._caches.followed
