"""Metric pages as engines write them."""

from __future__ import annotations

import re
from collections.abc import Sequence

BUCKETS = (0.001, 0.01, 0.02, 0.04, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 40.0, 640.0)
HISTOGRAMS = (
    "time_to_first_token_seconds",
    "inter_token_latency_seconds",
    "e2e_request_latency_seconds",
    "request_queue_time_seconds",
    "request_prefill_time_seconds",
    "request_decode_time_seconds",
    "request_prompt_tokens",
    "iteration_tokens_total",
)
VLLM_PAGE_BYTES = 54_000


def a_vllm_page(running: float = 3.0, waiting: float = 1.0, n_engines: int = 1) -> bytes:
    """What vLLM 0.11 and later say, in its size, of *n_engines* data-parallel engines alike."""
    engines = [f'engine="{i}",model_name="tiny"' for i in range(n_engines)]
    values = {
        "num_requests_running": running,
        "num_requests_waiting": waiting,
        'num_requests_waiting_by_reason{reason="capacity"}': waiting,
        "kv_cache_usage_perc": 0.25,
        "prefix_cache_queries_total": 2200.0,
        "prefix_cache_hits_total": 220.0,
        "external_prefix_cache_hits_total": 7.0,
        "prompt_tokens_total": 2200.0,
        "generation_tokens_total": 555.0,
    }
    lines = ["# HELP python_info Python platform information\npython_info{version='3.12'} 1.0"]
    for name, value in values.items():
        lines += [_sample(name, labels, value) for labels in engines]
    for labels in engines:
        lines.append(
            f'vllm:cache_config_info{{block_size="32",{labels},kv_cache_size_tokens="65536",'
            f'num_gpu_blocks="2048",num_gpu_blocks_override="None"}} 1.0'
        )
    number = 0
    while sum(map(len, lines)) + len(lines) < VLLM_PAGE_BYTES:
        name = f"vllm:{HISTOGRAMS[number % len(HISTOGRAMS)]}"
        lines += [f"# HELP {name} Histogram number {number}.", f"# TYPE {name} histogram"]
        lines += [f'{name}_bucket{{le="{le}",n="{number}"}} 12.0' for le in (*BUCKETS, "+Inf")]
        number += 1
    return "\n".join([*lines, ""]).encode()


def a_short_page() -> bytes:
    """What vLLM says in a few lines: not worth asking for a part."""
    return b"\n".join(a_vllm_page().splitlines()[:16]) + b"\n"


def part_of(page: bytes, names: Sequence[str]) -> bytes:
    """The lines of *page* about *names*, as prometheus_client picks them by `name[]`."""
    wanted = "|".join(re.escape(name) for name in names)
    about = re.compile(rf"(?:# \w+ )?(?:{wanted})[ {{]".encode())
    return b"".join(line for line in page.splitlines(keepends=True) if about.match(line))


def _sample(name: str, labels: str, value: float) -> str:
    name, _, more = name.partition("{")
    more = f",{more.removesuffix('}')}" if more else ""
    return f"# TYPE vllm:{name} gauge\nvllm:{name}{{{labels}{more}}} {value}"
