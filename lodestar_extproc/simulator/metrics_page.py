"""The metric page of a simulated server: vLLM's names, labels and buckets, from one engine.

It knows no HTTP. It is written by hand because fleets are scraped several times a second:
prometheus_client takes 1.4 ms a page, this 0.05 ms. Names and buckets are vLLM's own
(vllm-project/vllm, vllm/v1/metrics/loggers.py).
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

from lodestar_extproc.simulator.accelerators import EngineSpec
from lodestar_extproc.simulator.defaults import BLOCK_TOKENS
from lodestar_extproc.simulator.engine import EngineGauges

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Buckets of histograms, as vLLM has them.
_TTFT_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_TPOT_S = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
_E2E_S = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)


class Histogram:
    """One histogram family with one series."""

    def __init__(self, name: str, text: str, labels: str, buckets: tuple[float, ...]) -> None:
        self._head = f"# HELP {name} {text}\n# TYPE {name} histogram"
        self._edges = buckets
        self._counts = [0] * (len(buckets) + 1)
        self._sum = 0.0
        edges = (*map(str, buckets), "+Inf")
        self._series = [f'{name}_bucket{{{labels},le="{edge}"}} ' for edge in edges]
        self._total = f"{name}_count{{{labels}}} "
        self._total_sum = f"{name}_sum{{{labels}}} "

    def observe(self, value: float) -> None:
        """Count *value*."""
        self._counts[bisect_left(self._edges, value)] += 1
        self._sum += value

    def render(self) -> str:
        """The family's lines."""
        counts = list(accumulate(self._counts))
        lines = [f"{series}{n}.0" for series, n in zip(self._series, counts, strict=True)]
        totals = (f"{self._total}{counts[-1]}.0", f"{self._total_sum}{self._sum}")
        return "\n".join((self._head, *lines, *totals))


class MetricsPage:
    """What one server counts, and how it shows that."""

    def __init__(self, spec: EngineSpec, model: str) -> None:
        self._labels = f'engine="0",model_name="{model}"'
        self._cache_config = (
            "# HELP vllm:cache_config_info The KV cache.\n# TYPE vllm:cache_config_info gauge\n"
            f'vllm:cache_config_info{{block_size="{BLOCK_TOKENS}",'
            f'enable_prefix_caching="{spec.prefix_caching}",engine="0",'
            f'kv_cache_size_tokens="{spec.kv_tokens}",num_gpu_blocks="{spec.kv_blocks}"}} 1.0'
        )
        self.succeeded = 0
        self.aborted = 0
        self.ttft_s = Histogram(
            "vllm:time_to_first_token_seconds", "Arrival to first token.", self._labels, _TTFT_S
        )
        self.tpot_s = Histogram(
            "vllm:request_time_per_output_token_seconds",
            "Mean gap between the tokens of a request.",
            self._labels,
            _TPOT_S,
        )
        self.e2e_s = Histogram(
            "vllm:e2e_request_latency_seconds", "Arrival to last token.", self._labels, _E2E_S
        )

    def render(self, now: EngineGauges) -> str:
        """The page in Prometheus's text format."""
        gauges = (
            ("num_requests_running", "Requests in the batch.", now.running),
            ("num_requests_waiting", "Requests waiting for admission.", now.waiting),
            ("kv_cache_usage_perc", "KV cache in use, 0 to 1.", now.kv_usage_ratio),
        )
        counters = (
            ("prompt_tokens_total", "Prompt tokens admitted.", now.prompt_tokens),
            ("generation_tokens_total", "Tokens generated.", now.generated_tokens),
            ("prefix_cache_queries_total", "Tokens looked up.", now.prefix_query_tokens),
            ("prefix_cache_hits_total", "Tokens found.", now.prefix_hit_tokens),
            ("num_preemptions_total", "Requests preempted.", now.preemptions),
        )
        return "\n".join(
            (
                *(self._family("gauge", *family) for family in gauges),
                *(self._family("counter", *family) for family in counters),
                self._success(),
                *(family.render() for family in (self.ttft_s, self.tpot_s, self.e2e_s)),
                self._cache_config,
                "",
            )
        )

    def _family(self, kind: str, name: str, text: str, value: float) -> str:
        full = f"vllm:{name}"
        series = f"{full}{{{self._labels}}} {float(value)}"
        return f"# HELP {full} {text}\n# TYPE {full} {kind}\n{series}"

    def _success(self) -> str:
        name = "vllm:request_success_total"
        ended = (("length", self.succeeded), ("abort", self.aborted))
        lines = [
            f'{name}{{finished_reason="{reason}",{self._labels}}} {float(n)}' for reason, n in ended
        ]
        return "\n".join((f"# HELP {name} Requests that ended.\n# TYPE {name} counter", *lines))
