"""How engines name what they say on their Prometheus pages: one table each.

The names are those that vLLM, SGLang, trtllm-serve and Triton's TensorRT-LLM backend document, and
that the model server protocol of the Gateway API Inference Extension lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType


class Combine(Enum):
    """How several series of one name (data-parallel engines, model names) become one value."""

    SUM = auto()
    MEAN = auto()
    LEAST = auto()
    MOST = auto()


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
        adding: labels by which series differ that add up: data-parallel engines and ranks, models.
            Series that differ by any other label (ranks of tensor, pipeline, context or expert
            parallelism, process ids) repeat each other, and the largest of them counts.
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
    external_hit_tokens: tuple[Source, ...] = ()
    cache_block_tokens: tuple[Source, ...] = ()
    prefix_caching: tuple[Source, ...] = ()
    awake: tuple[Source, ...] = ()
    adding: tuple[bytes, ...] = (b"engine", b"dp_rank", b"model_name", b"model", b"version")
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
    external_hit_tokens=((Series(b"vllm:external_prefix_cache_hits_total"),),),
    # Of hybrid models it is the block of all layers together, 528 tokens for instance.
    cache_block_tokens=((Series(b"vllm:cache_config_info", Combine.MOST, (b"block_size",)),),),
    prefix_caching=(
        (Series(b"vllm:cache_config_info", Combine.MOST, (b"enable_prefix_caching",)),),
    ),
    awake=((Series(b"vllm:engine_sleep_state", Combine.LEAST, where=(b"sleep_state", b"awake")),),),
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
    cache_block_tokens=((Series(b"sglang:cache_config_info", Combine.MOST, (b"page_size",)),),),
    # Tokens found on the device and in the host's memory are counted apart.
    adding=(b"engine", b"dp_rank", b"model_name", b"cache_source"),
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
