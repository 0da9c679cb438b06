"""LoadTable: counters and scraped values of every endpoint, one column each.

It counts exactly what it is told and gives back exactly what was taken; it knows neither health nor
caches.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lodestar_extproc.endpoint import (
    COLUMNS,
    SCRAPED,
    Endpoint,
    EndpointMetrics,
    FleetSnapshot,
    FloatArray,
)
from lodestar_extproc.fleet.decode_speed import DecodeSpeed
from lodestar_extproc.fleet.prefix_caches import NOTHING_HELD, HeldPrompt
from lodestar_extproc.request import InferenceRequest

DECODE_RATE_SMOOTHING = 0.2
"""Weight of a scrape in the estimate, which follows the last five or so."""
MAX_DECODE_TOKENS_PER_S = 500.0
"""Of one request, a guard: more is taken for a counter that jumped."""

# Places of columns as plain integers: asking the column each time would double what a count costs.
PREFILL_REQUESTS = FleetSnapshot.prefill_requests.place
PREFILL_UNCACHED_TOKENS = FleetSnapshot.prefill_uncached_tokens.place
PREFILL_PROMPT_TOKENS = FleetSnapshot.prefill_prompt_tokens.place
PREFILL_PAIRS = FleetSnapshot.prefill_pairs.place
HEAD_UNCACHED_TOKENS = FleetSnapshot.head_uncached_tokens.place
HEAD_DISPATCHED_AT_S = FleetSnapshot.head_dispatched_at_s.place
LAST_FIRST_TOKEN_AT_S = FleetSnapshot.last_first_token_at_s.place
DECODE_REQUESTS = FleetSnapshot.decode_requests.place
DECODE_PROMPT_TOKENS = FleetSnapshot.decode_prompt_tokens.place
DECODE_STARTED_S = FleetSnapshot.decode_started_s.place
DECODE_TOKENS_PER_S = FleetSnapshot.decode_tokens_per_s.place
RUNNING_REQUESTS = FleetSnapshot.running_requests.place
WAITING_REQUESTS = FleetSnapshot.waiting_requests.place
KV_USAGE_RATIO = FleetSnapshot.kv_usage_ratio.place
SCRAPED_AT_S = FleetSnapshot.scraped_at_s.place
KV_CAPACITY_TOKENS = FleetSnapshot.kv_capacity_tokens.place
TOKEN_BUDGET = FleetSnapshot.token_budget.place


@dataclass(slots=True)
class InFlightRequest:
    """What one request took at one endpoint, to be given back exactly.

    Attributes:
        first_token_at_s: None while in prefill.
        held: what it keeps in the cache there until it ends.
        computed: its prompt has come into a cache.
        in_background: nobody waits for it any more.
    """

    address: str
    request: InferenceRequest
    uncached_tokens: float
    dispatched_at_s: float
    first_token_at_s: float | None = None
    held: HeldPrompt = NOTHING_HELD
    computed: bool = False
    in_background: bool = False

    @property
    def pairs(self) -> float:
        """Attention pairs its prefill computes."""
        return self.uncached_tokens * (self.request.prompt_tokens - self.uncached_tokens / 2)


class LoadTable:
    """The numbers behind every snapshot.

    Single ones are read and written as plain floats, which numpy is slow at; whole rows by numpy.
    Both see the same memory.

    Args:
        decode_speed: is told what scrapes show of it.
    """

    def __init__(self, decode_speed: DecodeSpeed) -> None:
        self._decode_speed = decode_speed
        self._columns: dict[str, memoryview[float]] = {}
        self._declared_capacities: dict[str, float | None] = {}
        self._prefills: dict[str, OrderedDict[str, InFlightRequest]] = {}
        self._generation: dict[str, tuple[float, float]] = {}
        self._oldest_scrape_s: float | None = None
        self.adopt(())

    def adopt(self, endpoints: Sequence[Endpoint]) -> None:
        """Make *endpoints* the columns; those that stay keep their numbers, but for their settings.

        Where the capacity they declare has changed, one that a scrape told comes with the next.
        """
        numbers = self._moved([e.address for e in endpoints])
        numbers[:, TOKEN_BUDGET] = [e.token_budget for e in endpoints]
        before = self._declared_capacities
        for row, endpoint in enumerate(endpoints):
            declared = endpoint.kv_capacity_tokens
            if declared != before.get(endpoint.address, math.nan):
                numbers[row, KV_CAPACITY_TOKENS] = math.nan if declared is None else declared
        self._declared_capacities = {e.address: e.kv_capacity_tokens for e in endpoints}
        self._rows = numbers.T
        width, cells = len(COLUMNS), numbers.ravel().data.cast("B").cast("d")
        self._columns = {
            endpoint.address: cells[row * width : (row + 1) * width]
            for row, endpoint in enumerate(endpoints)
        }
        prefills = self._prefills
        self._prefills = {a: prefills[a] if a in prefills else OrderedDict() for a in self._columns}
        self._generation = {a: g for a, g in self._generation.items() if a in self._columns}
        self._oldest_scrape_s = None

    def _moved(self, addresses: Sequence[str]) -> FloatArray:
        """[n, columns]: the numbers of each address, fresh ones of one that is new."""
        places = {address: place for place, address in enumerate(self._columns)}
        known = [row for row, address in enumerate(addresses) if address in places]
        numbers = np.tile([column.fresh for column in COLUMNS], (len(addresses), 1))
        if known:
            numbers[known] = self._rows.T[[places[addresses[row]] for row in known]]
        return numbers

    def start_prefill(self, decision_id: str, sent: InFlightRequest) -> None:
        """Count *sent* as waiting for its first token."""
        of = self._columns[sent.address]
        of[PREFILL_REQUESTS] += 1
        of[PREFILL_UNCACHED_TOKENS] += sent.uncached_tokens
        of[PREFILL_PROMPT_TOKENS] += sent.request.prompt_tokens
        of[PREFILL_PAIRS] += sent.pairs
        prefills = self._prefills[sent.address]
        prefills[decision_id] = sent
        if len(prefills) == 1:
            self._set_head(sent.address)

    def end_prefill(self, decision_id: str, sent: InFlightRequest) -> None:
        """Give back what `start_prefill` counted."""
        of = self._columns[sent.address]
        prefills = self._prefills[sent.address]
        del prefills[decision_id]
        of[PREFILL_REQUESTS] -= 1
        of[PREFILL_UNCACHED_TOKENS] -= sent.uncached_tokens
        of[PREFILL_PROMPT_TOKENS] -= sent.request.prompt_tokens
        of[PREFILL_PAIRS] -= sent.pairs
        if not prefills:  # no rounding error outlives an empty queue
            of[PREFILL_REQUESTS] = of[PREFILL_UNCACHED_TOKENS] = 0.0
            of[PREFILL_PROMPT_TOKENS] = of[PREFILL_PAIRS] = 0.0
        self._set_head(sent.address)

    def _set_head(self, address: str) -> None:
        """Note whose prompt waits longest."""
        of, prefills = self._columns[address], self._prefills[address]
        if prefills:
            head = next(iter(prefills.values()))
            of[HEAD_UNCACHED_TOKENS] = head.uncached_tokens
            of[HEAD_DISPATCHED_AT_S] = head.dispatched_at_s
        else:
            of[HEAD_UNCACHED_TOKENS] = 0.0
            of[HEAD_DISPATCHED_AT_S] = -math.inf

    def start_decode(self, sent: InFlightRequest, at_s: float) -> None:
        """Count *sent* as generating since *at_s*."""
        sent.first_token_at_s = at_s
        # Engines count, and compute, each answer as a request of its own.
        of, n_answers = self._columns[sent.address], sent.request.n_answers
        of[DECODE_REQUESTS] += n_answers
        of[DECODE_PROMPT_TOKENS] += sent.request.prompt_tokens
        of[DECODE_STARTED_S] += n_answers * at_s

    def end_decode(self, sent: InFlightRequest) -> None:
        """Give back what `start_decode` counted."""
        of, n_answers = self._columns[sent.address], sent.request.n_answers
        of[DECODE_REQUESTS] -= n_answers
        of[DECODE_PROMPT_TOKENS] -= sent.request.prompt_tokens
        of[DECODE_STARTED_S] -= n_answers * (sent.first_token_at_s or 0.0)
        if of[DECODE_REQUESTS] == 0:
            of[DECODE_PROMPT_TOKENS] = of[DECODE_STARTED_S] = 0.0

    def generated_tokens(self, address: str, at_s: float) -> float:
        """Estimate what the requests that decode at *address* have generated so far."""
        of = self._columns[address]
        decoding_s = of[DECODE_REQUESTS] * at_s - of[DECODE_STARTED_S]
        return max(0.0, decoding_s) * of[DECODE_TOKENS_PER_S]

    def saw_first_token(self, address: str, at_s: float) -> None:
        """A real first token came from *address*."""
        of = self._columns[address]
        of[LAST_FIRST_TOKEN_AT_S] = max(of[LAST_FIRST_TOKEN_AT_S], at_s)

    def scraped(self, address: str, metrics: EndpointMetrics, at_s: float) -> bool:
        """Adopt what the engine reported; None leaves a value unknown.

        Returns True when its counters fell or went: the engine restarted since the last scrape.
        """
        of, running = self._columns[address], metrics.running_requests
        ran = of[RUNNING_REQUESTS] > 0
        waiting, kv_usage_ratio = metrics.waiting_requests, metrics.kv_usage_ratio
        of[RUNNING_REQUESTS] = math.nan if running is None else running
        of[WAITING_REQUESTS] = math.nan if waiting is None else waiting
        of[KV_USAGE_RATIO] = math.nan if kv_usage_ratio is None else kv_usage_ratio
        of[SCRAPED_AT_S] = at_s
        self._oldest_scrape_s = None
        if metrics.kv_capacity_tokens is not None:
            of[KV_CAPACITY_TOKENS] = metrics.kv_capacity_tokens
        total = metrics.generation_tokens
        if total is None:
            return self._generation.pop(address, None) is not None
        total_before, before_s = self._generation.get(address, (total, at_s))
        self._generation[address] = (total, at_s)
        # Between a page at rest and this one the engine did not run all the time.
        if ran and running and total > total_before and at_s > before_s:
            rate = (total - total_before) / (at_s - before_s) / running
            rate = min(rate, MAX_DECODE_TOKENS_PER_S)
            self._decode_speed.observe(address, running, 1.0 / rate)
            known = of[DECODE_TOKENS_PER_S]
            of[DECODE_TOKENS_PER_S] = known + DECODE_RATE_SMOOTHING * (rate - known)
        return total < total_before

    def kv_capacity_tokens(self, address: str) -> float | None:
        """As the engine, or else its settings, say; None where neither does."""
        capacity = self._columns[address][KV_CAPACITY_TOKENS]
        return None if math.isnan(capacity) else capacity

    def counted(self, address: str) -> bool:
        """Whether a restart of *address* would show in its counters."""
        return address in self._generation

    def waits(self, address: str) -> bool:
        """Whether any prompt waits for its first token from *address*."""
        return bool(self._prefills[address])

    def at_rest(self, address: str) -> bool:
        """Whether nothing was sent to *address* that has not ended, and its engine runs nothing.

        Not while it has not told how much it runs.
        """
        of = self._columns.get(address)
        if of is None or of[PREFILL_REQUESTS] or of[DECODE_REQUESTS]:
            return False
        return of[RUNNING_REQUESTS] == 0 and not of[WAITING_REQUESTS] > 0

    def in_flight(self) -> FloatArray:
        """Requests sent and not ended, by column."""
        total: FloatArray = self._rows[PREFILL_REQUESTS] + self._rows[DECODE_REQUESTS]
        return total

    def decodes(self) -> FloatArray:
        """Requests that generate, by column."""
        decodes: FloatArray = self._rows[DECODE_REQUESTS]
        return decodes

    def longest_silence_s(self, at_s: float) -> float:
        """The longest of `silent_s`, found faster."""
        longest_s = 0.0
        for address, prefills in self._prefills.items():
            if prefills:
                of = self._columns[address]
                since_s = max(of[HEAD_DISPATCHED_AT_S], of[LAST_FIRST_TOKEN_AT_S])
                longest_s = max(longest_s, at_s - since_s)
        return longest_s

    def silent_s(self, at_s: float) -> FloatArray:
        """Seconds the oldest prefill has waited without any first token; 0 without a prefill."""
        since_s = np.maximum(self._rows[HEAD_DISPATCHED_AT_S], self._rows[LAST_FIRST_TOKEN_AT_S])
        return np.where(self._rows[PREFILL_REQUESTS] > 0, at_s - since_s, 0.0)

    def head_uncached_tokens(self) -> FloatArray:
        """Of the oldest prefill, by column."""
        tokens: FloatArray = self._rows[HEAD_UNCACHED_TOKENS]
        return tokens

    def view(
        self,
        endpoints: tuple[Endpoint, ...],
        columns: list[int] | None,
        at_s: float,
        stale_s: float,
    ) -> FleetSnapshot:
        """A consistent copy of *columns* (None: all), which are those of *endpoints*.

        Args:
            stale_s: scraped values older than this become NaN.
        """
        values = self._rows.copy() if columns is None else self._rows.take(columns, axis=1)
        # Scrapes come together, with many decisions between them: looked for once.
        if self._oldest_scrape_s is None:
            self._oldest_scrape_s = min(self._rows[SCRAPED_AT_S].tolist(), default=math.inf)
        if at_s - self._oldest_scrape_s > stale_s:
            stale = at_s - values[SCRAPED_AT_S] > stale_s
            values[SCRAPED, stale] = np.nan
        return FleetSnapshot(at_s, endpoints, values)
