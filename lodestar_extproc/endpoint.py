"""Endpoint, what its engine reports, and FleetSnapshot: one consistent view of all endpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from lodestar_extproc.computed_once import ComputedOnce
from lodestar_extproc.encryption import UpstreamTls
from lodestar_extproc.kv_events_source import KvEventsSource

FloatArray = NDArray[np.float64]

ZERO, HALF, ONE = np.array(0.0), np.array(0.5), np.array(1.0)
"""For what is computed in every decision: numpy takes half as long again for a plain float."""

DEFAULT_DECODE_TOKENS_PER_S = 33.0
"""Of one request, until two scrapes have shown the engine's own: 30 ms a token, a usual pace."""


class Level(NamedTuple):
    """The level of priority that an endpoint is of in its cluster, by Envoy's rules.

    Attributes:
        priority: requests go to 0 while enough of its endpoints are up.
        overprovisioning: enough are, while their share times this is at least 1.
        panic_ratio: of those that are up, below which nobody's level is spared.
        is_degraded: it gets requests where the others of all levels cannot serve them all.
    """

    priority: int = 0
    overprovisioning: float = 1.4
    panic_ratio: float = 0.5
    is_degraded: bool = False


class HealthQuestion(NamedTuple):
    """How an endpoint is asked for its health.

    Attributes:
        host: of the Host header; empty for the URL's.
        statuses: ranges of what a healthy one answers, their ends not counted.
    """

    method: str = "GET"
    host: str = ""
    statuses: tuple[tuple[int, int], ...] = ((200, 300),)

    def is_healthy(self, status: int) -> bool:
        """Whether that is what a healthy endpoint answers."""
        return any(first <= status < end for first, end in self.statuses)


FIRST_LEVEL = Level()
ANY_2XX = HealthQuestion()


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
        tls: how its pages are asked for where their URLs say `https`.
        kv_events: where it tells of its cache; None where nobody is to listen.
    """

    address: str
    accelerator: str = "default"
    engine: str = "vllm"
    metrics_url: str | None = None
    health_url: str | None = None
    kv_capacity_tokens: float | None = None
    token_budget: float = 2048.0
    prefix_caching: bool = True
    tls: UpstreamTls | None = None
    health: HealthQuestion = ANY_2XX
    level: Level = FIRST_LEVEL
    kv_events: KvEventsSource | None = None


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
        external_hit_tokens: found in a cache beside the engine, which its hits leave out; a total.
        cache_block_tokens: of a block of its cache; only whole ones are found again.
        prefix_caching: 0 where it finds nothing again, else 1.
        awake: 0 while it sleeps, else 1.
    """

    running_requests: float | None = None
    waiting_requests: float | None = None
    kv_usage_ratio: float | None = None
    kv_capacity_tokens: float | None = None
    generation_tokens: float | None = None
    prefix_query_tokens: float | None = None
    prefix_hit_tokens: float | None = None
    adapters: Adapters | None = None
    external_hit_tokens: float | None = None
    cache_block_tokens: float | None = None
    prefix_caching: float | None = None
    awake: float | None = None


class Column:
    """One number of every endpoint: a row of `FleetSnapshot.values`, read by the column's name.

    Args:
        fresh: what it is before anything is known of an endpoint.
        scraped: an engine reported it, so it grows stale; else it is counted or set here.
        kept: a journal keeps it.
        kept_as: the name that a journal gives it, where that keeps something derived from it.

    Attributes:
        place: its row in the values: columns stand there in the order of their declaration.
    """

    name: str
    place: int

    def __init__(
        self,
        fresh: float = 0.0,
        *,
        scraped: bool = False,
        kept: bool = True,
        kept_as: str = "",
    ) -> None:
        self.fresh = fresh
        self.scraped = scraped
        self.kept = kept
        self.kept_as = kept_as

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name
        self.kept_as = self.kept_as or name
        self.place = [each for each in vars(owner).values() if isinstance(each, Column)].index(self)

    @overload
    def __get__(self, snapshot: None, owner: type) -> Column: ...

    @overload
    def __get__(self, snapshot: FleetSnapshot, owner: type) -> FloatArray: ...

    def __get__(self, snapshot: FleetSnapshot | None, owner: type) -> Column | FloatArray:
        return self if snapshot is None else snapshot.values[self.place]


def rows_of(*columns: Column) -> Callable[[FloatArray], tuple[FloatArray, ...]]:
    """What takes the rows of *columns* from a snapshot's values: a third of asking one by one."""
    return itemgetter(*[column.place for column in columns])


@dataclass(eq=False)
class FleetSnapshot:
    """The routable endpoints at one instant; every column is float64 of shape [n_endpoints].

    Counted here, exact: requests between dispatch and first token ("prefill") and after it
    ("decode"). Scraped: NaN where unknown or too old.

    Attributes:
        at_s: monotonic seconds.
        values: [n_columns, n_endpoints]; see `rows_of` where many columns are asked for.
    """

    at_s: float
    endpoints: tuple[Endpoint, ...]
    values: FloatArray

    prefill_requests = Column()
    prefill_uncached_tokens = Column()
    """Prompt tokens of the prefills, less estimated prefix hits."""
    prefill_prompt_tokens = Column()
    prefill_pairs = Column()
    """Attention pairs to compute: U·(F - U/2) of each prefill, U uncached of F prompt tokens."""
    head_uncached_tokens = Column()
    """Of the oldest prefill; 0 without one."""
    head_dispatched_at_s = Column(fresh=-math.inf)
    """Of the oldest prefill; -inf without one."""
    last_first_token_at_s = Column(fresh=-math.inf)
    decode_requests = Column()
    """Each answer of a request that generates several is one, as engines count them."""
    decode_prompt_tokens = Column(kept_as="decode_context_tokens")
    running_requests = Column(fresh=math.nan, scraped=True)
    waiting_requests = Column(fresh=math.nan, scraped=True)
    kv_usage_ratio = Column(fresh=math.nan, scraped=True)
    scraped_at_s = Column(fresh=-math.inf, kept_as="scrape_age_s")
    kv_capacity_tokens = Column(fresh=math.nan)
    """Scraped or set; the last one known, however old."""
    token_budget = Column()
    decode_started_s = Column(kept=False)
    """The sum of the decodes' first-token times."""
    decode_tokens_per_s = Column(fresh=DEFAULT_DECODE_TOKENS_PER_S, kept=False)
    """Of each decode, estimated."""

    @classmethod
    def of(
        cls, at_s: float, endpoints: tuple[Endpoint, ...], columns: Mapping[str, FloatArray]
    ) -> FleetSnapshot:
        """A snapshot of the column [n_endpoints] of every name in `SNAPSHOT_COLUMNS`.

        How a context came about is not among them: it is taken to be prompts.
        """
        values = np.zeros((len(COLUMNS), len(endpoints)))
        for column in COLUMNS:
            if column.kept:
                values[column.place] = columns[column.kept_as]
        snapshot = cls(at_s, endpoints, values)
        np.subtract(at_s, columns["scrape_age_s"], out=snapshot.scraped_at_s)
        return snapshot

    def __len__(self) -> int:
        return len(self.endpoints)

    @property
    def in_flight(self) -> FloatArray:
        """Requests sent and not ended, by endpoint; see `decode_requests`."""
        return self.prefill_requests + self.decode_requests

    @property
    def scrape_age_s(self) -> FloatArray:
        """Since the last scrape was asked for; inf before any."""
        return self.at_s - self.scraped_at_s

    @ComputedOnce
    def decode_context_tokens(self) -> FloatArray:
        """Prompt plus estimated generated tokens of the decodes, computed once, if at all."""
        decodes, started_s, tokens_per_s, prompt_tokens = _DECODE(self.values)
        decoding_s = decodes * self.at_s - started_s
        return prompt_tokens + tokens_per_s * np.maximum(ZERO, decoding_s)

    @ComputedOnce
    def held_tokens(self) -> FloatArray:
        """Of all requests there, counted prompt by prompt; computed once, if at all."""
        return self.decode_context_tokens + self.prefill_prompt_tokens

    @ComputedOnce
    def memory_used_ratio(self) -> FloatArray:
        """Share of each KV cache that the requests there hold; NaN where its size is unknown.

        Counted prompt by prompt, blocks that prompts share count more than once. The engine reports
        a shared block once, but not yet those of prompts that wait. Neither is far too low, so the
        lower of the two counts; without a report, what is counted.
        """
        capacity, waiting, reported = _MEMORY(self.values)
        return np.fmin(self.held_tokens / capacity, reported + waiting / capacity)

    def let_go(self) -> None:
        """Forget what was computed of it: who asks again has it computed again."""
        for name in ("decode_context_tokens", "held_tokens", "memory_used_ratio"):
            vars(self).pop(name, None)


_DECODE = rows_of(
    FleetSnapshot.decode_requests,
    FleetSnapshot.decode_started_s,
    FleetSnapshot.decode_tokens_per_s,
    FleetSnapshot.decode_prompt_tokens,
)
_MEMORY = rows_of(
    FleetSnapshot.kv_capacity_tokens,
    FleetSnapshot.prefill_uncached_tokens,
    FleetSnapshot.kv_usage_ratio,
)
COLUMNS = tuple(each for each in vars(FleetSnapshot).values() if isinstance(each, Column))
"""In the order of their places."""
_SCRAPED = tuple(column.place for column in COLUMNS if column.scraped)
SCRAPED = slice(_SCRAPED[0], _SCRAPED[-1] + 1)
"""Rows of what scrapes tell: they are neighbours, and can be had or made unknown at once."""
SNAPSHOT_COLUMNS = tuple(each.kept_as for each in COLUMNS if each.kept)
"""What a journal keeps of a snapshot."""
