"""Fleet: the one owner of what is known about every endpoint's load, cache and health.

It counts, estimates and answers; it neither scrapes nor decides. One thread, no locks.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

import numpy as np

from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.endpoint import Endpoint, EndpointMetrics, FleetSnapshot, FloatArray
from lodestar_extproc.fleet.adapters import AdapterTable
from lodestar_extproc.fleet.decode_speed import DecodeSpeed
from lodestar_extproc.fleet.health import Health, HealthState
from lodestar_extproc.fleet.load import Flight, LoadTable
from lodestar_extproc.fleet.prefix_index import PrefixIndex, matched_blocks
from lodestar_extproc.fleet.silence import Silence
from lodestar_extproc.fleet.stalls import StallDetector
from lodestar_extproc.request import BLOCK_BYTES, InferenceRequest, Subset

DEFAULT_KV_CAPACITY_TOKENS = 100_000.0
"""Until an engine reports its own: the index must be bounded before the first scrape."""


class Fleet:
    """Load, cache contents and health of the endpoints of one pool.

    Args:
        endpoints: the fleet at start.
    """

    def __init__(self, live: LiveSettings, endpoints: Iterable[Endpoint] = ()) -> None:
        self._live = live
        self._health = Health(live)
        self._endpoints: tuple[Endpoint, ...] = ()
        self._indexes: dict[str, PrefixIndex | None] = {}
        self.adapters = AdapterTable()
        self.decode_speed = DecodeSpeed()
        self._load = LoadTable(self.decode_speed)
        self._flights: dict[str, Flight] = {}
        self._expected: list[tuple[float, str]] = []
        self.stalls = StallDetector()
        self._silence = Silence(live, self._load, self._health, self.stalls)
        self.set_endpoints(endpoints)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """All members, routable or not."""
        return self._endpoints

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
        left = [a for a in self._indexes if a not in wanted]
        joined = [e for a, e in wanted.items() if a not in self._indexes]
        for address in left:
            self._health.remove(address)
            self.adapters.forget(address)
            self.decode_speed.forget(address)
            self._silence.forget(address)
            del self._indexes[address]
        for endpoint in joined:
            self._health.add(endpoint.address)
        self._flights = {k: f for k, f in self._flights.items() if f.address in wanted}
        self._endpoints = tuple(wanted.values())
        self._load.adopt(self._endpoints)
        self._indexes = {a: self._sized_index(endpoint) for a, endpoint in wanted.items()}
        return joined, left

    def _sized_index(self, endpoint: Endpoint) -> PrefixIndex | None:
        if not endpoint.prefix_caching:
            return None
        capacity = self._load.kv_capacity_tokens(endpoint.address)
        n_blocks = self._blocks(DEFAULT_KV_CAPACITY_TOKENS if capacity is None else capacity)
        index = self._indexes.get(endpoint.address)
        if index is None:
            return PrefixIndex(n_blocks)
        index.resize(n_blocks)
        return index

    def _blocks(self, kv_capacity_tokens: float) -> int:
        return int(kv_capacity_tokens * (self._live.current.bytes_per_token / BLOCK_BYTES)) or 1

    # -- what a decision reads ------------------------------------------------------------------

    def snapshot(
        self, at_s: float, subset: Subset | None = None, prompt: int | None = None
    ) -> FleetSnapshot:
        """The routable endpoints of *subset* (None: of all) now.

        All of them if none is routable, none if there are none.

        Args:
            prompt: endpoints that failed it lately are left out, while others are there.
        """
        self._pass_expected_first_tokens(at_s)
        self._silence.judge(self._endpoints, self._flights.values(), at_s)
        columns, endpoints = self._routable(at_s, subset, prompt), self._endpoints
        if columns is not None:
            endpoints = tuple(endpoints[i] for i in columns)
        return self._load.view(endpoints, columns, at_s, self._live.current.scrape_stale_s)

    def everything(self, at_s: float) -> FleetSnapshot:
        """All endpoints, routable or not, for those who watch."""
        return self._load.view(self._endpoints, None, at_s, self._live.current.scrape_stale_s)

    def match(
        self, request: InferenceRequest, endpoints: Sequence[Endpoint]
    ) -> tuple[FloatArray, FloatArray]:
        """Prompt tokens each cache probably holds, and the share of full blocks, both [n]."""
        if not (hashes := request.block_hashes):
            return np.zeros(len(endpoints)), np.zeros(len(endpoints))
        matched = matched_blocks(self._indexes_of(endpoints), hashes)
        blocks, tokens_per_block = np.array(matched, dtype=np.float64), request.tokens_per_block
        tokens, n_blocks = blocks * tokens_per_block, float(len(hashes))
        most = max(request.prompt_tokens - 1.0, 0.0)  # the last one is always computed
        if n_blocks * tokens_per_block > most:
            np.minimum(tokens, most, out=tokens)
        return tokens, np.divide(blocks, n_blocks, out=blocks)

    def _indexes_of(self, endpoints: Sequence[Endpoint]) -> Iterable[PrefixIndex | None]:
        if endpoints is self._endpoints:
            return self._indexes.values()
        return [self._indexes[e.address] for e in endpoints]

    def _routable(self, at_s: float, subset: Subset | None, prompt: int | None) -> list[int] | None:
        """Columns that may be chosen; None for all."""
        allowed = None
        if subset is not None:
            allowed = [i for i, e in enumerate(self._endpoints) if e.address in subset]
        failed = () if prompt is None else self._health.failed_with(prompt, at_s)
        if self._health.all_healthy and not failed:
            return allowed
        columns = range(len(self._endpoints)) if allowed is None else allowed
        chosen = [i for i in columns if self._takes(i, at_s)]
        return [i for i in chosen if self._endpoints[i].address not in failed] or chosen or allowed

    def _takes(self, column: int, at_s: float) -> bool:
        """Whether the endpoint in *column* may be given a request."""
        address = self._endpoints[column].address
        state = self._health.state(address, at_s)
        if state is not HealthState.PROBATION:
            return state is HealthState.HEALTHY
        left = self._silence.n_written_off(address, self._flights.values())
        return bool(self._load.in_flight()[column] <= left)

    # -- requests in flight ---------------------------------------------------------------------

    @property
    def n_in_flight(self) -> int:
        """Requests dispatched and not yet released."""
        return len(self._flights)

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
        if address not in self._indexes or decision_id in self._flights:
            return
        flight = Flight(address, request, uncached_tokens, at_s)
        self._flights[decision_id] = flight
        self._load.start_prefill(decision_id, flight)
        self._remember_prompt(address, request)
        if expected_first_token_at_s is not None:
            heapq.heappush(self._expected, (expected_first_token_at_s, decision_id))

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
        flight = self._flights.get(decision_id)
        if flight is None:
            return
        if flight.first_token_at_s is None:
            self._load.end_prefill(decision_id, flight)
            self._move(flight, served)
            self._load.start_decode(flight, at_s)
        self._load.saw_first_token(flight.address, at_s)
        self._health.first_token(flight.address, at_s)
        self.stalls.first_token(flight.address, at_s)
        if watched:
            self.stalls.watch(decision_id, flight.address, at_s)

    def _move(self, flight: Flight, served: str | None) -> None:
        """A retry, or Envoy's own choice, served it elsewhere: count it, and its prompt, there."""
        if served is not None and served != flight.address and served in self._indexes:
            self._forget_prompt(flight)
            flight.address = served
            self._remember_prompt(served, flight.request)

    def _pass_expected_first_tokens(self, at_s: float) -> None:
        while self._expected and self._expected[0][0] <= at_s:
            expected_at_s, decision_id = heapq.heappop(self._expected)
            flight = self._flights.get(decision_id)
            if flight is not None and flight.first_token_at_s is None:
                self._load.end_prefill(decision_id, flight)
                self._load.start_decode(flight, expected_at_s)

    def release(
        self,
        decision_id: str,
        at_s: float,
        *,
        served: str | None = None,
        prompt_computed: bool = True,
        whole: bool = True,
    ) -> None:
        """Give back all that `dispatch` took. Idempotent.

        Args:
            served: who answered; None where it was sent, or where its first token came from.
            prompt_computed: False when the prompt never reached an engine's cache.
            whole: an answer came to its end.
        """
        flight = self._flights.pop(decision_id, None)
        if flight is None:
            return
        if self.stalls.released(decision_id, flight.address, at_s, whole=whole):
            self._health.trial_failed(flight.address, at_s)
        if flight.first_token_at_s is None:
            self._load.end_prefill(decision_id, flight)
        else:
            self._load.end_decode(flight)
        if not self._load.waits(flight.address):
            self._health.gave_up(flight.address, at_s)
        if prompt_computed:
            self._move(flight, served)
        else:
            self._forget_prompt(flight)

    def _remember_prompt(self, address: str, request: InferenceRequest) -> None:
        index = self._indexes[address]
        if index is not None:
            index.insert(request.block_hashes)

    def _forget_prompt(self, flight: Flight) -> None:
        index = self._indexes[flight.address]
        if index is not None:
            index.remove(flight.request.block_hashes)

    # -- what is observed of endpoints -------------------------------------------------------------

    def record_metrics(self, address: str, metrics: EndpointMetrics, at_s: float) -> None:
        """A scrape of *address* succeeded."""
        if address not in self._indexes:
            return
        self.adapters.report(address, metrics.adapters)
        self.stalls.scraped(address, metrics, at_s)
        restarted = self._load.scraped(address, metrics, at_s)
        index, capacity = self._indexes[address], metrics.kv_capacity_tokens
        if index is None:
            return
        if restarted:
            index.clear()
        if capacity is not None:
            index.resize(self._blocks(capacity))

    def record_probe(self, address: str, healthy: bool, at_s: float) -> None:  # noqa: FBT001
        """An active probe of *address* ended."""
        was_down = self._health.state(address, at_s) is HealthState.DOWN
        self._health.probed(address, healthy=healthy)
        index = self._indexes.get(address)
        # Slow to answer is not restarted: known counters tell which, in `record_metrics`.
        if was_down and healthy and index is not None and not self._load.counted(address):
            index.clear()
