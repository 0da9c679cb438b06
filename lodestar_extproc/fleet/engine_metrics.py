"""Parse an engine's Prometheus page into EndpointMetrics: one table of names, one scan.

Pure: it knows neither HTTP nor time. The names are those that vLLM, SGLang, trtllm-serve and
Triton's TensorRT-LLM backend document, and that the model server protocol of the Gateway API
Inference Extension lists.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType

from lodestar_extproc.endpoint import Adapters, EndpointMetrics

Sample = tuple[Mapping[bytes, bytes], bytes]
"""Labels and value text."""


class Combine(Enum):
    """How several series of one name (data-parallel engines, model names) become one value."""

    SUM = auto()
    MEAN = auto()


@dataclass(frozen=True, slots=True)
class Series:
    """One metric to look for.

    Attributes:
        labels: where given, a series' value is the product of these labels, not its sample.
        where: a label and the value it must have; empty for any series.
    """

    name: bytes
    combine: Combine = Combine.SUM
    labels: tuple[bytes, ...] = ()
    where: tuple[bytes, bytes] | None = None


Source = tuple[Series, ...]
"""Series whose values are multiplied; unknown where one of them is."""


@dataclass(frozen=True, slots=True)
class EngineNames:
    """Where one engine says what: for each field its sources, the preferred one first.

    Attributes:
        adapters: labels of running ones, of waiting ones, and of how many run at once.
        replicas: labels by which series differ that repeat each other; the first one counts.
        totals: a label that splits a series whose total carries the empty value; only that counts.
    """

    running_requests: tuple[Source, ...]
    waiting_requests: tuple[Source, ...]
    kv_usage_ratio: tuple[Source, ...]
    kv_capacity_tokens: tuple[Source, ...]
    generation_tokens: tuple[Source, ...] = ()
    prefix_query_tokens: tuple[Source, ...] = ()
    prefix_hit_tokens: tuple[Source, ...] = ()
    adapters: tuple[Source, ...] = ()
    replicas: tuple[bytes, ...] = ()
    totals: bytes = b""


VLLM = EngineNames(
    running_requests=((Series(b"vllm:num_requests_running"),),),
    waiting_requests=((Series(b"vllm:num_requests_waiting"),),),
    kv_usage_ratio=(
        (Series(b"vllm:kv_cache_usage_perc", Combine.MEAN),),
        (Series(b"vllm:gpu_cache_usage_perc", Combine.MEAN),),  # the older name
    ),
    kv_capacity_tokens=(
        # Right for hybrid models too, whose blocks are not all of one kind.
        (Series(b"vllm:cache_config_info", labels=(b"kv_cache_size_tokens",)),),
        (Series(b"vllm:cache_config_info", labels=(b"block_size", b"num_gpu_blocks")),),
    ),
    generation_tokens=((Series(b"vllm:generation_tokens_total"),),),
    # The older vllm:gpu_prefix_cache_* counted blocks in some releases and tokens in others.
    prefix_query_tokens=((Series(b"vllm:prefix_cache_queries_total"),),),
    prefix_hit_tokens=((Series(b"vllm:prefix_cache_hits_total"),),),
    adapters=(
        (
            Series(
                b"vllm:lora_requests_info",
                labels=(b"running_lora_adapters", b"waiting_lora_adapters", b"max_lora"),
            ),
        ),
    ),
)

SGLANG = EngineNames(
    running_requests=((Series(b"sglang:num_running_reqs"),),),
    waiting_requests=((Series(b"sglang:num_queue_reqs"),),),
    kv_usage_ratio=((Series(b"sglang:token_usage", Combine.MEAN),),),
    kv_capacity_tokens=(
        (Series(b"sglang:max_total_num_tokens"),),
        (Series(b"sglang:cache_config_info", labels=(b"page_size", b"num_pages")),),
    ),
    generation_tokens=((Series(b"sglang:generation_tokens_total"),),),
    prefix_query_tokens=((Series(b"sglang:prompt_tokens_total"),),),
    prefix_hit_tokens=((Series(b"sglang:cached_tokens_total"),),),
    replicas=(b"tp_rank", b"pp_rank"),
    totals=b"priority",
)

TRTLLM = EngineNames(
    running_requests=((Series(b"trtllm_num_requests_running"),),),
    waiting_requests=((Series(b"trtllm_num_requests_waiting"),),),
    kv_usage_ratio=((Series(b"trtllm_kv_cache_utilization", Combine.MEAN),),),
    kv_capacity_tokens=(
        (
            Series(b"trtllm_kv_cache_max_blocks"),
            Series(b"trtllm_kv_cache_tokens_per_block", Combine.MEAN),
        ),
    ),
    generation_tokens=((Series(b"trtllm_generation_tokens_total"),),),
)

_TRITON_REQUESTS = b"nv_trt_llm_request_metrics"
_TRITON_BLOCKS = b"nv_trt_llm_kv_cache_block_metrics"
_TRITON_BLOCK_TYPE = b"kv_cache_block_type"

TRITON = EngineNames(
    running_requests=((Series(_TRITON_REQUESTS, where=(b"request_type", b"scheduled")),),),
    waiting_requests=(
        (Series(_TRITON_REQUESTS, where=(b"request_type", b"waiting")),),
        (Series(b"nv_inference_pending_request_count"),),  # of any backend
    ),
    kv_usage_ratio=(
        (Series(_TRITON_BLOCKS, Combine.MEAN, where=(_TRITON_BLOCK_TYPE, b"fraction")),),
    ),
    kv_capacity_tokens=(
        (
            Series(_TRITON_BLOCKS, where=(_TRITON_BLOCK_TYPE, b"max")),
            Series(_TRITON_BLOCKS, Combine.MEAN, where=(_TRITON_BLOCK_TYPE, b"tokens_per")),
        ),
    ),
)

ENGINES: Mapping[str, EngineNames] = MappingProxyType(
    {"vllm": VLLM, "sglang": SGLANG, "trtllm": TRTLLM, "triton": TRITON}
)
"""By the value of `Endpoint.engine`."""


def parse(page: bytes, engine: str) -> EndpointMetrics:
    """What *page* says in the names of *engine*; never raises.

    A value is None where it is absent, or where any series it is made of is NaN, infinite,
    negative or no number; so is a usage above 1 and a capacity of 0. An engine that is not in
    `ENGINES` says nothing.

    >>> parse(b'vllm:num_requests_running{engine="0"} 3.0', "vllm").running_requests
    3.0
    """
    names = ENGINES.get(engine)
    if names is None:
        return EndpointMetrics()
    parsed = _Page(_samples(page, engine), names)
    read = parsed.read
    usage = read(names.kv_usage_ratio)
    return EndpointMetrics(
        running_requests=read(names.running_requests),
        waiting_requests=read(names.waiting_requests),
        kv_usage_ratio=usage if usage is not None and usage <= 1 else None,
        kv_capacity_tokens=read(names.kv_capacity_tokens) or None,
        generation_tokens=read(names.generation_tokens),
        prefix_query_tokens=read(names.prefix_query_tokens),
        prefix_hit_tokens=read(names.prefix_hit_tokens),
        adapters=parsed.adapters(),
    )


def _line_pattern(names: EngineNames) -> re.Pattern[bytes]:
    """Finds the samples of every metric in *names*, as name and rest of the line.

    It begins with all that the names share: `re` searches for a literal five times faster.
    """
    wanted = {
        series.name
        for field in EndpointMetrics._fields
        for source in getattr(names, field)
        for series in source
    }
    shared = os.path.commonprefix(sorted(wanted))  # noqa: RUF071 (of characters, not of paths)
    rests = b"|".join(sorted(re.escape(name.removeprefix(shared)) for name in wanted))
    return re.compile(rb"\n(" + re.escape(shared) + rb"(?:" + rests + rb"))([{ \t][^\n]*+)")


_LINES = MappingProxyType({name: _line_pattern(names) for name, names in ENGINES.items()})
_SAMPLE = re.compile(
    rb'(?:[ \t]*+\{((?:[^"}\n]++|"(?:[^"\\\n]++|\\[^\n])*+")*+)\})?+[ \t]*+([^ \t\n]++)'
)
"""What follows a name: label text in braces, which quoted values may hold too, and the value."""
_LABEL = re.compile(rb'([a-zA-Z_]\w*+)[ \t]*+=[ \t]*+"((?:[^"\\\n]++|\\[^\n])*+)"')


def _samples(page: bytes, engine: str) -> Mapping[bytes, list[Sample]]:
    """Every sample that *engine*'s names ask for, by name; an unreadable one has an empty value."""
    samples: dict[bytes, list[Sample]] = {}
    for name, rest in _LINES[engine].findall(b"\n" + page):
        match = _SAMPLE.match(rest)
        labels, value = (match[1] or b"", match[2]) if match else (b"", b"")
        samples.setdefault(name, []).append((dict(_LABEL.findall(labels)), value))
    return samples


class _Page:
    """The samples of one page, read by the names of one engine."""

    def __init__(self, samples: Mapping[bytes, list[Sample]], names: EngineNames) -> None:
        self._samples = samples
        self._names = names

    def read(self, sources: tuple[Source, ...]) -> float | None:
        """The value of the first source that is known."""
        for source in sources:
            value = _product([self._combined(series) for series in source])
            if value is not None:
                return value
        return None

    def adapters(self) -> Adapters | None:
        """Of the newest sample: its value is the time at which it was true."""
        for series in itertools.chain.from_iterable(self._names.adapters):
            samples = self._samples.get(series.name, [])
            if samples:
                labels, _ = max(samples, key=lambda sample: _number(sample[1]) or 0.0)
                running, waiting, slots = (labels.get(label, b"") for label in series.labels)
                return Adapters(_names_in(running), _names_in(waiting), _number(slots) or 0.0)
        return None

    def _combined(self, series: Series) -> float | None:
        values = list(self._values(series))
        if not values or None in values:
            return None
        total = sum(value for value in values if value is not None)
        return total / len(values) if series.combine is Combine.MEAN else total

    def _values(self, series: Series) -> Iterator[float | None]:
        """The value of each sample that counts; None where it is no usable number."""
        for labels, value in self._distinct(self._samples.get(series.name, [])):
            if series.where and labels.get(series.where[0]) != series.where[1]:
                continue
            if series.labels:
                yield _product([_number(labels.get(label, b"")) for label in series.labels])
            else:
                yield _number(value)

    def _distinct(self, samples: list[Sample]) -> Iterator[Sample]:
        """The samples without those that repeat or split up another one."""
        replicas, totals = self._names.replicas, self._names.totals
        seen: set[frozenset[tuple[bytes, bytes]]] = set()
        for labels, value in samples:
            identity = frozenset(item for item in labels.items() if item[0] not in replicas)
            if identity not in seen and not labels.get(totals):
                yield labels, value
            seen.add(identity)


def _number(text: bytes) -> float | None:
    """A finite number of 0 or more; None for anything else."""
    try:
        value = float(text)
    except ValueError:
        return None
    # float() also reads "1_000", which is no number in the exposition format.
    return value if value >= 0 and math.isfinite(value) and b"_" not in text else None


def _names_in(text: bytes) -> frozenset[str]:
    """Of a list parted by commas."""
    parts = (part.strip() for part in text.decode("utf-8", "replace").split(","))
    return frozenset(filter(None, parts))


def _product(factors: list[float | None]) -> float | None:
    product = 1.0
    for factor in factors:
        if factor is None:
            return None
        product *= factor
    return product if math.isfinite(product) else None
