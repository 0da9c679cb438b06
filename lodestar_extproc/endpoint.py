"""Endpoint, what its engine reports, and FleetSnapshot: one consistent view of all endpoints."""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True)
class FleetSnapshot:
    """The routable endpoints at one instant; every array is float64 of shape [n_endpoints].

    Counted here, exact: requests between dispatch and first token ("prefill") and after it
    ("decode"). Scraped: NaN where unknown or too old.

    Attributes:
        at_s: monotonic seconds.
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
    prefill_requests: FloatArray
    prefill_uncached_tokens: FloatArray
    prefill_prompt_tokens: FloatArray
    prefill_pairs: FloatArray
    head_uncached_tokens: FloatArray
    head_dispatched_at_s: FloatArray
    last_first_token_at_s: FloatArray
    decode_requests: FloatArray
    decode_context_tokens: FloatArray
    running_requests: FloatArray
    waiting_requests: FloatArray
    kv_usage_ratio: FloatArray
    scrape_age_s: FloatArray
    kv_capacity_tokens: FloatArray
    token_budget: FloatArray
    n_samples: FloatArray

    def __len__(self) -> int:
        return len(self.endpoints)

    @property
    def in_flight(self) -> FloatArray:
        """Requests sent and not ended, by endpoint."""
        return self.prefill_requests + self.decode_requests
