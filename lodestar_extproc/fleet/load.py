"""LoadTable: counters and scraped values of every endpoint, one matrix column each.

It counts exactly what it is told and gives back exactly what was taken; it knows neither health nor
caches.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lodestar_extproc.endpoint import Endpoint, EndpointMetrics, FleetSnapshot, FloatArray
from lodestar_extproc.fleet.decode_speed import DecodeSpeed
from lodestar_extproc.request import InferenceRequest

DEFAULT_DECODE_TOKENS_PER_S = 33.0
DECODE_RATE_SMOOTHING = 0.2
MAX_DECODE_TOKENS_PER_S = 500.0


class Row:
    """Rows of the matrix; plain numbers, for an enum's members index slowly."""

    PREFILL_REQUESTS = 0
    PREFILL_UNCACHED = 1
    PREFILL_PROMPT = 2
    PREFILL_PAIRS = 3
    HEAD_UNCACHED = 4
    HEAD_AT_S = 5
    LAST_FIRST_TOKEN_AT_S = 6
    DECODE_REQUESTS = 7
    DECODE_PROMPT = 8
    DECODE_STARTED_S = 9  # the sum of the decodes' first-token times
    DECODE_RATE = 10
    RUNNING = 11
    WAITING = 12
    KV_USAGE = 13
    SCRAPED_AT_S = 14
    KV_CAPACITY = 15
    TOKEN_BUDGET = 16
    FIRST_TOKENS = 17
    COUNT = 18


@dataclass(slots=True)
class Flight:
    """What one request took at one endpoint, to be given back exactly.

    Attributes:
        first_token_at_s: None while in prefill.
    """

    address: str
    request: InferenceRequest
    uncached_tokens: float
    dispatched_at_s: float
    first_token_at_s: float | None = None

    @property
    def pairs(self) -> float:
        """Attention pairs its prefill computes."""
        return self.uncached_tokens * (self.request.prompt_tokens - self.uncached_tokens / 2)


class LoadTable:
    """The numbers behind every snapshot.

    Args:
        decode_speed: is told what scrapes show of it.
    """

    def __init__(self, decode_speed: DecodeSpeed) -> None:
        self._decode_speed = decode_speed
        self._columns: dict[str, int] = {}
        self._prefills: dict[str, OrderedDict[str, Flight]] = {}
        self._matrix = np.zeros((Row.COUNT, 0))
        self._generation: dict[str, tuple[float, float]] = {}

    def adopt(self, endpoints: Sequence[Endpoint]) -> None:
        """Make *endpoints* the columns; those that stay keep their numbers."""
        matrix = np.zeros((Row.COUNT, len(endpoints)))
        for column, endpoint in enumerate(endpoints):
            old = self._columns.get(endpoint.address)
            matrix[:, column] = _fresh(endpoint) if old is None else self._matrix[:, old]
        self._columns = {e.address: i for i, e in enumerate(endpoints)}
        self._prefills = {a: self._prefills.get(a, OrderedDict()) for a in self._columns}
        self._generation = {a: g for a, g in self._generation.items() if a in self._columns}
        self._matrix = matrix

    def start_prefill(self, decision_id: str, flight: Flight) -> None:
        """Count *flight* as waiting for its first token."""
        column = self._matrix[:, self._columns[flight.address]]
        column[Row.PREFILL_REQUESTS] += 1
        column[Row.PREFILL_UNCACHED] += flight.uncached_tokens
        column[Row.PREFILL_PROMPT] += flight.request.prompt_tokens
        column[Row.PREFILL_PAIRS] += flight.pairs
        self._prefills[flight.address][decision_id] = flight
        self._set_head(column, flight.address)

    def end_prefill(self, decision_id: str, flight: Flight) -> None:
        """Give back what `start_prefill` counted."""
        column = self._matrix[:, self._columns[flight.address]]
        prefills = self._prefills[flight.address]
        del prefills[decision_id]
        column[Row.PREFILL_REQUESTS] -= 1
        column[Row.PREFILL_UNCACHED] -= flight.uncached_tokens
        column[Row.PREFILL_PROMPT] -= flight.request.prompt_tokens
        column[Row.PREFILL_PAIRS] -= flight.pairs
        if not prefills:  # no rounding error outlives an empty queue
            column[Row.PREFILL_REQUESTS : Row.HEAD_UNCACHED] = 0.0
        self._set_head(column, flight.address)

    def start_decode(self, flight: Flight, at_s: float) -> None:
        """Count *flight* as generating since *at_s*."""
        flight.first_token_at_s = at_s
        column = self._matrix[:, self._columns[flight.address]]
        column[Row.DECODE_REQUESTS] += 1
        column[Row.DECODE_PROMPT] += flight.request.prompt_tokens
        column[Row.DECODE_STARTED_S] += at_s

    def end_decode(self, flight: Flight) -> None:
        """Give back what `start_decode` counted."""
        column = self._matrix[:, self._columns[flight.address]]
        column[Row.DECODE_REQUESTS] -= 1
        column[Row.DECODE_PROMPT] -= flight.request.prompt_tokens
        column[Row.DECODE_STARTED_S] -= flight.first_token_at_s or 0.0
        if column[Row.DECODE_REQUESTS] == 0:
            column[Row.DECODE_REQUESTS : Row.DECODE_RATE] = 0.0

    def saw_first_token(self, address: str, at_s: float) -> None:
        """A real first token came from *address*."""
        column = self._matrix[:, self._columns[address]]
        column[Row.LAST_FIRST_TOKEN_AT_S] = max(column[Row.LAST_FIRST_TOKEN_AT_S], at_s)
        column[Row.FIRST_TOKENS] += 1

    def scraped(self, address: str, metrics: EndpointMetrics, at_s: float) -> bool:
        """Adopt what the engine reported; None leaves a value unknown.

        Returns True when its counters fell or went: the engine restarted since the last scrape.
        """
        column = self._matrix[:, self._columns[address]]
        column[Row.RUNNING : Row.KV_CAPACITY] = (
            _or_nan(metrics.running_requests),
            _or_nan(metrics.waiting_requests),
            _or_nan(metrics.kv_usage_ratio),
            at_s,
        )
        if metrics.kv_capacity_tokens is not None:
            column[Row.KV_CAPACITY] = metrics.kv_capacity_tokens
        total = metrics.generation_tokens
        if total is None:
            return self._generation.pop(address, None) is not None
        total_before, before_s = self._generation.get(address, (total, at_s))
        self._generation[address] = (total, at_s)
        if metrics.running_requests and total > total_before and at_s > before_s:
            rate = (total - total_before) / (at_s - before_s) / metrics.running_requests
            rate = min(rate, MAX_DECODE_TOKENS_PER_S)
            self._decode_speed.observe(address, metrics.running_requests, 1.0 / rate)
            column[Row.DECODE_RATE] += DECODE_RATE_SMOOTHING * (rate - column[Row.DECODE_RATE])
        return total < total_before

    def counted(self, address: str) -> bool:
        """Whether a restart of *address* would show in its counters."""
        return address in self._generation

    def _set_head(self, column: FloatArray, address: str) -> None:
        prefills = self._prefills[address]
        if prefills:
            head = next(iter(prefills.values()))
            column[Row.HEAD_UNCACHED] = head.uncached_tokens
            column[Row.HEAD_AT_S] = head.dispatched_at_s
        else:
            column[Row.HEAD_UNCACHED] = 0.0
            column[Row.HEAD_AT_S] = -np.inf

    def waits(self, address: str) -> bool:
        """Whether any prompt waits for its first token from *address*."""
        return bool(self._prefills[address])

    def in_flight(self) -> FloatArray:
        """Requests sent and not ended, by column."""
        total: FloatArray = self._matrix[Row.PREFILL_REQUESTS] + self._matrix[Row.DECODE_REQUESTS]
        return total

    def silent_s(self, at_s: float) -> FloatArray:
        """Seconds the oldest prefill has waited without any first token; 0 without a prefill."""
        since_s = np.maximum(self._matrix[Row.HEAD_AT_S], self._matrix[Row.LAST_FIRST_TOKEN_AT_S])
        return np.where(self._matrix[Row.PREFILL_REQUESTS] > 0, at_s - since_s, 0.0)

    def head_uncached_tokens(self) -> FloatArray:
        """Of the oldest prefill, by column."""
        tokens: FloatArray = self._matrix[Row.HEAD_UNCACHED]
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
        m = self._matrix.copy() if columns is None else self._matrix[:, columns]
        age_s = at_s - m[Row.SCRAPED_AT_S]
        if np.maximum.reduce(age_s, initial=0.0) > stale_s:
            m[Row.RUNNING : Row.SCRAPED_AT_S, age_s > stale_s] = np.nan
        decoding_s = np.maximum(0.0, m[Row.DECODE_REQUESTS] * at_s - m[Row.DECODE_STARTED_S])
        return FleetSnapshot(
            at_s=at_s,
            endpoints=endpoints,
            prefill_requests=m[Row.PREFILL_REQUESTS],
            prefill_uncached_tokens=m[Row.PREFILL_UNCACHED],
            prefill_prompt_tokens=m[Row.PREFILL_PROMPT],
            prefill_pairs=m[Row.PREFILL_PAIRS],
            head_uncached_tokens=m[Row.HEAD_UNCACHED],
            head_dispatched_at_s=m[Row.HEAD_AT_S],
            last_first_token_at_s=m[Row.LAST_FIRST_TOKEN_AT_S],
            decode_requests=m[Row.DECODE_REQUESTS],
            decode_context_tokens=m[Row.DECODE_PROMPT] + m[Row.DECODE_RATE] * decoding_s,
            running_requests=m[Row.RUNNING],
            waiting_requests=m[Row.WAITING],
            kv_usage_ratio=m[Row.KV_USAGE],
            scrape_age_s=age_s,
            kv_capacity_tokens=m[Row.KV_CAPACITY],
            token_budget=m[Row.TOKEN_BUDGET],
            n_samples=m[Row.FIRST_TOKENS],
        )


def _fresh(endpoint: Endpoint) -> FloatArray:
    column = np.zeros(Row.COUNT)
    column[[Row.HEAD_AT_S, Row.LAST_FIRST_TOKEN_AT_S, Row.SCRAPED_AT_S]] = -np.inf
    column[[Row.RUNNING, Row.WAITING, Row.KV_USAGE]] = np.nan
    column[Row.DECODE_RATE] = DEFAULT_DECODE_TOKENS_PER_S
    column[Row.KV_CAPACITY] = _or_nan(endpoint.kv_capacity_tokens)
    column[Row.TOKEN_BUDGET] = endpoint.token_budget
    return column


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
