"""LoadTable: counters and scraped values of every endpoint, one column each.

It counts exactly what it is told and gives back exactly what was taken; it knows neither health nor
caches.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from lodestar_extproc.endpoint import Endpoint, EndpointMetrics, FleetSnapshot, FloatArray
from lodestar_extproc.fleet.decode_speed import DecodeSpeed
from lodestar_extproc.fleet.prefix_index import Run
from lodestar_extproc.request import InferenceRequest

DEFAULT_DECODE_TOKENS_PER_S = 33.0
DECODE_RATE_SMOOTHING = 0.2
MAX_DECODE_TOKENS_PER_S = 500.0


class Row:
    """Places of an endpoint's numbers, those of a snapshot's values; no enum, which is slower."""

    PREFILL_REQUESTS: Final = 0
    PREFILL_UNCACHED: Final = 1
    PREFILL_PROMPT: Final = 2
    PREFILL_PAIRS: Final = 3
    HEAD_UNCACHED: Final = 4
    HEAD_AT_S: Final = 5
    LAST_FIRST_TOKEN_AT_S: Final = 6
    DECODE_REQUESTS: Final = 7
    DECODE_PROMPT: Final = 8
    RUNNING: Final = 9
    WAITING: Final = 10
    KV_USAGE: Final = 11
    SCRAPED_AT_S: Final = 12
    KV_CAPACITY: Final = 13
    TOKEN_BUDGET: Final = 14
    FIRST_TOKENS: Final = 15
    DECODE_STARTED_S: Final = 16
    DECODE_RATE: Final = 17
    COUNT: Final = 18


@dataclass(slots=True)
class Flight:
    """What one request took at one endpoint, to be given back exactly.

    Attributes:
        first_token_at_s: None while in prefill.
        held: the end of its prompt in the endpoint's prefix index; None where that is not kept.
    """

    address: str
    request: InferenceRequest
    uncached_tokens: float
    dispatched_at_s: float
    first_token_at_s: float | None = None
    held: Run | None = None

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
        self._prefills: dict[str, OrderedDict[str, Flight]] = {}
        self._generation: dict[str, tuple[float, float]] = {}
        self._oldest_scrape_s: float | None = None
        self.adopt(())

    def adopt(self, endpoints: Sequence[Endpoint]) -> None:
        """Make *endpoints* the columns; those that stay keep their numbers."""
        numbers = np.zeros((len(endpoints), Row.COUNT))
        for row, endpoint in zip(numbers, endpoints, strict=True):
            known = self._columns.get(endpoint.address)
            row[:] = _fresh(endpoint) if known is None else known
        self._rows = numbers.T
        self._columns = {
            endpoint.address: row.data.cast("B").cast("d")
            for endpoint, row in zip(endpoints, numbers, strict=True)
        }
        self._prefills = {a: self._prefills.get(a, OrderedDict()) for a in self._columns}
        self._generation = {a: g for a, g in self._generation.items() if a in self._columns}
        self._oldest_scrape_s = None

    def start_prefill(self, decision_id: str, flight: Flight) -> None:
        """Count *flight* as waiting for its first token."""
        of = self._columns[flight.address]
        of[Row.PREFILL_REQUESTS] += 1
        of[Row.PREFILL_UNCACHED] += flight.uncached_tokens
        of[Row.PREFILL_PROMPT] += flight.request.prompt_tokens
        of[Row.PREFILL_PAIRS] += flight.pairs
        prefills = self._prefills[flight.address]
        prefills[decision_id] = flight
        if len(prefills) == 1:
            self._set_head(flight.address)

    def end_prefill(self, decision_id: str, flight: Flight) -> None:
        """Give back what `start_prefill` counted."""
        of = self._columns[flight.address]
        prefills = self._prefills[flight.address]
        del prefills[decision_id]
        of[Row.PREFILL_REQUESTS] -= 1
        of[Row.PREFILL_UNCACHED] -= flight.uncached_tokens
        of[Row.PREFILL_PROMPT] -= flight.request.prompt_tokens
        of[Row.PREFILL_PAIRS] -= flight.pairs
        if not prefills:  # no rounding error outlives an empty queue
            for row in range(Row.PREFILL_REQUESTS, Row.HEAD_UNCACHED):
                of[row] = 0.0
        self._set_head(flight.address)

    def _set_head(self, address: str) -> None:
        """Note whose prompt waits longest."""
        of, prefills = self._columns[address], self._prefills[address]
        if prefills:
            head = next(iter(prefills.values()))
            of[Row.HEAD_UNCACHED] = head.uncached_tokens
            of[Row.HEAD_AT_S] = head.dispatched_at_s
        else:
            of[Row.HEAD_UNCACHED] = 0.0
            of[Row.HEAD_AT_S] = -math.inf

    def start_decode(self, flight: Flight, at_s: float) -> None:
        """Count *flight* as generating since *at_s*."""
        flight.first_token_at_s = at_s
        of = self._columns[flight.address]
        of[Row.DECODE_REQUESTS] += 1
        of[Row.DECODE_PROMPT] += flight.request.prompt_tokens
        of[Row.DECODE_STARTED_S] += at_s

    def end_decode(self, flight: Flight) -> None:
        """Give back what `start_decode` counted."""
        of = self._columns[flight.address]
        of[Row.DECODE_REQUESTS] -= 1
        of[Row.DECODE_PROMPT] -= flight.request.prompt_tokens
        of[Row.DECODE_STARTED_S] -= flight.first_token_at_s or 0.0
        if of[Row.DECODE_REQUESTS] == 0:
            of[Row.DECODE_PROMPT] = of[Row.DECODE_STARTED_S] = 0.0

    def generated_tokens(self, address: str, at_s: float) -> float:
        """Estimate of what the requests that decode at *address* have generated so far."""
        of = self._columns[address]
        decoding_s = of[Row.DECODE_REQUESTS] * at_s - of[Row.DECODE_STARTED_S]
        return max(0.0, decoding_s) * of[Row.DECODE_RATE]

    def saw_first_token(self, address: str, at_s: float) -> None:
        """A real first token came from *address*."""
        of = self._columns[address]
        of[Row.LAST_FIRST_TOKEN_AT_S] = max(of[Row.LAST_FIRST_TOKEN_AT_S], at_s)
        of[Row.FIRST_TOKENS] += 1

    def scraped(self, address: str, metrics: EndpointMetrics, at_s: float) -> bool:
        """Adopt what the engine reported; None leaves a value unknown.

        Returns True when its counters fell or went: the engine restarted since the last scrape.
        """
        of, running = self._columns[address], metrics.running_requests
        waiting, kv_usage_ratio = metrics.waiting_requests, metrics.kv_usage_ratio
        of[Row.RUNNING] = math.nan if running is None else running
        of[Row.WAITING] = math.nan if waiting is None else waiting
        of[Row.KV_USAGE] = math.nan if kv_usage_ratio is None else kv_usage_ratio
        of[Row.SCRAPED_AT_S] = at_s
        self._oldest_scrape_s = None
        if metrics.kv_capacity_tokens is not None:
            of[Row.KV_CAPACITY] = metrics.kv_capacity_tokens
        total = metrics.generation_tokens
        if total is None:
            return self._generation.pop(address, None) is not None
        total_before, before_s = self._generation.get(address, (total, at_s))
        self._generation[address] = (total, at_s)
        if running and total > total_before and at_s > before_s:
            rate = (total - total_before) / (at_s - before_s) / running
            rate = min(rate, MAX_DECODE_TOKENS_PER_S)
            self._decode_speed.observe(address, running, 1.0 / rate)
            known = of[Row.DECODE_RATE]
            of[Row.DECODE_RATE] = known + DECODE_RATE_SMOOTHING * (rate - known)
        return total < total_before

    def counted(self, address: str) -> bool:
        """Whether a restart of *address* would show in its counters."""
        return address in self._generation

    def waits(self, address: str) -> bool:
        """Whether any prompt waits for its first token from *address*."""
        return bool(self._prefills[address])

    def in_flight(self) -> FloatArray:
        """Requests sent and not ended, by column."""
        total: FloatArray = self._rows[Row.PREFILL_REQUESTS] + self._rows[Row.DECODE_REQUESTS]
        return total

    def longest_silence_s(self, at_s: float) -> float:
        """The longest of `silent_s`, found faster."""
        longest_s = 0.0
        for address, prefills in self._prefills.items():
            if prefills:
                of = self._columns[address]
                since_s = max(of[Row.HEAD_AT_S], of[Row.LAST_FIRST_TOKEN_AT_S])
                longest_s = max(longest_s, at_s - since_s)
        return longest_s

    def silent_s(self, at_s: float) -> FloatArray:
        """Seconds the oldest prefill has waited without any first token; 0 without a prefill."""
        since_s = np.maximum(self._rows[Row.HEAD_AT_S], self._rows[Row.LAST_FIRST_TOKEN_AT_S])
        return np.where(self._rows[Row.PREFILL_REQUESTS] > 0, at_s - since_s, 0.0)

    def head_uncached_tokens(self) -> FloatArray:
        """Of the oldest prefill, by column."""
        tokens: FloatArray = self._rows[Row.HEAD_UNCACHED]
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
            self._oldest_scrape_s = min(self._rows[Row.SCRAPED_AT_S].tolist(), default=math.inf)
        if at_s - self._oldest_scrape_s > stale_s:
            stale = at_s - values[Row.SCRAPED_AT_S] > stale_s
            values[Row.RUNNING : Row.SCRAPED_AT_S, stale] = np.nan
        return FleetSnapshot(at_s, endpoints, values)


def _fresh(endpoint: Endpoint) -> FloatArray:
    column = np.zeros(Row.COUNT)
    column[[Row.HEAD_AT_S, Row.LAST_FIRST_TOKEN_AT_S, Row.SCRAPED_AT_S]] = -np.inf
    column[[Row.RUNNING, Row.WAITING, Row.KV_USAGE]] = np.nan
    column[Row.DECODE_RATE] = DEFAULT_DECODE_TOKENS_PER_S
    capacity = endpoint.kv_capacity_tokens
    column[Row.KV_CAPACITY] = math.nan if capacity is None else capacity
    column[Row.TOKEN_BUDGET] = endpoint.token_budget
    return column
