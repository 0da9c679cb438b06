"""Endpoint, what its engine reports, and FleetSnapshot: one consistent view of all endpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

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


class EndpointMetrics(NamedTuple):
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


@dataclass(frozen=True)
class FleetSnapshot:
    """The routable endpoints at one instant; every column is float64 of shape [n_endpoints].

    Counted here, exact: requests between dispatch and first token ("prefill") and after it
    ("decode"). Scraped: NaN where unknown or too old.

    Attributes:
        at_s: monotonic seconds.
        values: [n_columns, n_endpoints]. Columns are looked up where they are asked for, for most
            rules read two or three.
        prefill_uncached_tokens: prompt tokens of the prefills, less estimated prefix hits.
        prefill_pairs: attention pairs still to compute, the sum of U·(F - U/2) over the prefills
            (U uncached, F full prompt tokens).
        head_uncached_tokens, head_dispatched_at_s: of the oldest prefill; 0 and -inf without one.
        last_first_token_at_s, scraped_at_s: -inf before any.
        kv_capacity_tokens: NaN where unknown.
        n_samples: first tokens learned from each endpoint so far.
        decode_started_s: the sum of the decodes' first-token times.
        decode_tokens_per_s: of each decode, estimated.
    """

    at_s: float
    endpoints: tuple[Endpoint, ...]
    values: FloatArray
    _decode_context_tokens: FloatArray = field(init=False, repr=False, compare=False)

    @classmethod
    def of(
        cls, at_s: float, endpoints: tuple[Endpoint, ...], columns: Mapping[str, FloatArray]
    ) -> FleetSnapshot:
        """A snapshot of the column [n_endpoints] of every name in `SNAPSHOT_COLUMNS`.

        How a context came about is not among them: it is taken to be prompts.
        """
        values = np.zeros((len(SNAPSHOT_COLUMNS) + 2, len(endpoints)))
        values[:-2] = [columns[name] for name in SNAPSHOT_COLUMNS]
        snapshot = cls(at_s, endpoints, values)
        np.subtract(at_s, columns["scrape_age_s"], out=snapshot.scraped_at_s)
        return snapshot

    def __len__(self) -> int:
        return len(self.endpoints)

    @property
    def in_flight(self) -> FloatArray:
        """Requests sent and not ended, by endpoint."""
        return self.prefill_requests + self.decode_requests

    @property
    def scrape_age_s(self) -> FloatArray:
        """Since the last scrape was asked for; inf before any."""
        return self.at_s - self.scraped_at_s

    @property
    def decode_context_tokens(self) -> FloatArray:
        """Prompt plus estimated generated tokens of the decodes, computed once, if at all."""
        try:
            return self._decode_context_tokens
        except AttributeError:  # asked for the first time
            decoding_s = self.decode_requests * self.at_s - self.decode_started_s
            generated = self.decode_tokens_per_s * np.maximum(0.0, decoding_s)
            found: FloatArray = self.decode_prompt_tokens + generated
            object.__setattr__(self, "_decode_context_tokens", found)
            return found

    @property
    def prefill_requests(self) -> FloatArray:
        return self.values[0]

    @property
    def prefill_uncached_tokens(self) -> FloatArray:
        return self.values[1]

    @property
    def prefill_prompt_tokens(self) -> FloatArray:
        return self.values[2]

    @property
    def prefill_pairs(self) -> FloatArray:
        return self.values[3]

    @property
    def head_uncached_tokens(self) -> FloatArray:
        return self.values[4]

    @property
    def head_dispatched_at_s(self) -> FloatArray:
        return self.values[5]

    @property
    def last_first_token_at_s(self) -> FloatArray:
        return self.values[6]

    @property
    def decode_requests(self) -> FloatArray:
        return self.values[7]

    @property
    def decode_prompt_tokens(self) -> FloatArray:
        return self.values[8]

    @property
    def running_requests(self) -> FloatArray:
        return self.values[9]

    @property
    def waiting_requests(self) -> FloatArray:
        return self.values[10]

    @property
    def kv_usage_ratio(self) -> FloatArray:
        return self.values[11]

    @property
    def scraped_at_s(self) -> FloatArray:
        return self.values[12]

    @property
    def kv_capacity_tokens(self) -> FloatArray:
        return self.values[13]

    @property
    def token_budget(self) -> FloatArray:
        return self.values[14]

    @property
    def n_samples(self) -> FloatArray:
        return self.values[15]

    @property
    def decode_started_s(self) -> FloatArray:
        return self.values[16]

    @property
    def decode_tokens_per_s(self) -> FloatArray:
        return self.values[17]


SNAPSHOT_COLUMNS = (
    "prefill_requests",
    "prefill_uncached_tokens",
    "prefill_prompt_tokens",
    "prefill_pairs",
    "head_uncached_tokens",
    "head_dispatched_at_s",
    "last_first_token_at_s",
    "decode_requests",
    "decode_context_tokens",
    "running_requests",
    "waiting_requests",
    "kv_usage_ratio",
    "scrape_age_s",
    "kv_capacity_tokens",
    "token_budget",
    "n_samples",
)
"""What is kept of a snapshot, in the order of its values."""
