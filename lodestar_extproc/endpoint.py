"""Endpoint, what its engine reports, and FleetSnapshot: one consistent view of all endpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One engine that can serve a request.

    Attributes:
        address: `ip:port`, as Envoy's cluster knows it.
        accelerator: the kind of hardware; endpoints of one kind share what is learned.
        engine: whose metric names the page at *metrics_url* uses.
        kv_capacity_tokens: tokens the KV cache holds; None until scraped or set.
        token_budget: tokens the engine schedules a step.
        prefix_caching: False for an engine that computes every prompt whole.
    """

    address: str
    accelerator: str = "default"
    engine: str = "vllm"
    metrics_url: str | None = None
    health_url: str | None = None
    kv_capacity_tokens: float | None = None
    token_budget: float = 2048.0
    prefix_caching: bool = True


@dataclass(frozen=True, slots=True)
class Adapters:
    """The LoRA adapters of one engine.

    Attributes:
        running, waiting: of requests that it computes, and of requests that wait.
        slots: how many it computes at once.
    """

    running: frozenset[str] = frozenset()
    waiting: frozenset[str] = frozenset()
    slots: float = 0.0


@dataclass(frozen=True, slots=True)
class EndpointMetrics:
    """What one scrape of an engine's metric page said; None is unknown, never zero.

    Attributes:
        kv_usage_ratio: 0 to 1.
        generation_tokens: total since the engine started.
        prefix_query_tokens, prefix_hit_tokens: totals since the engine started.
    """

    running_requests: float | None = None
    waiting_requests: float | None = None
    kv_usage_ratio: float | None = None
    kv_capacity_tokens: float | None = None
    generation_tokens: float | None = None
    prefix_query_tokens: float | None = None
    prefix_hit_tokens: float | None = None
    adapters: Adapters | None = None


class _Column:
    """One row of a snapshot's values, as an attribute."""

    def __init__(self, row: int) -> None:
        self._row = row

    def __get__(self, snapshot: FleetSnapshot, owner: type[FleetSnapshot]) -> FloatArray:
        row: FloatArray = snapshot.values[self._row]
        return row


@dataclass(frozen=True, slots=True)
class FleetSnapshot:
    """The routable endpoints at one instant; every column is float64 of shape [n_endpoints].

    Counted here, exact: requests between dispatch and first token ("prefill") and after it
    ("decode"). Scraped: NaN where unknown or too old.

    Attributes:
        at_s: monotonic seconds.
        values: [n_columns, n_endpoints], all columns; one is looked up where it is asked for,
            for a fixed rule reads two or three.
        prefill_uncached_tokens: prompt tokens of the prefills, less estimated prefix hits.
        prefill_pairs: attention pairs still to compute, the sum of U·(F - U/2) over the prefills
            (U uncached, F full prompt tokens).
        head_uncached_tokens, head_dispatched_at_s: of the oldest prefill; 0 and -inf without one.
        last_first_token_at_s: -inf before any.
        decode_context_tokens: prompt plus estimated generated tokens of the decodes.
        kv_capacity_tokens: NaN where unknown.
        n_samples: first tokens learned from each endpoint so far.
    """

    at_s: float
    endpoints: tuple[Endpoint, ...]
    values: FloatArray

    prefill_requests = _Column(0)
    prefill_uncached_tokens = _Column(1)
    prefill_prompt_tokens = _Column(2)
    prefill_pairs = _Column(3)
    head_uncached_tokens = _Column(4)
    head_dispatched_at_s = _Column(5)
    last_first_token_at_s = _Column(6)
    decode_requests = _Column(7)
    decode_context_tokens = _Column(8)
    running_requests = _Column(9)
    waiting_requests = _Column(10)
    kv_usage_ratio = _Column(11)
    scrape_age_s = _Column(12)
    kv_capacity_tokens = _Column(13)
    token_budget = _Column(14)
    n_samples = _Column(15)

    @classmethod
    def of(
        cls, at_s: float, endpoints: tuple[Endpoint, ...], columns: Mapping[str, FloatArray]
    ) -> FleetSnapshot:
        """A snapshot of the column [n_endpoints] of every name in `SNAPSHOT_COLUMNS`."""
        return cls(at_s, endpoints, np.array([columns[name] for name in SNAPSHOT_COLUMNS]))

    def __len__(self) -> int:
        return len(self.endpoints)

    @property
    def in_flight(self) -> FloatArray:
        """Requests sent and not ended, by endpoint."""
        return self.prefill_requests + self.decode_requests


SNAPSHOT_COLUMNS = tuple(k for k, v in vars(FleetSnapshot).items() if isinstance(v, _Column))
"""By row of a snapshot's values."""
