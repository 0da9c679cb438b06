import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from lodestar_extproc.endpoint import Adapters, EndpointMetrics
from lodestar_extproc.fleet.engine_metrics import ENGINES, parse
from metric_pages import VLLM_PAGE_BYTES, a_vllm_page

SUMMED = {
    "running_requests": {"vllm": "vllm:num_requests_running", "sglang": "sglang:num_running_reqs"},
    "waiting_requests": {"vllm": "vllm:num_requests_waiting", "sglang": "sglang:num_queue_reqs"},
    "generation_tokens": {
        "vllm": "vllm:generation_tokens_total",
        "sglang": "sglang:generation_tokens_total",
    },
}
LOOKALIKES = (
    "vllm:num_requests_waiting_by_reason",
    "my_vllm:num_requests_running",
    "sglang:num_running_reqs_total",
)
NAMES = [name for by_engine in SUMMED.values() for name in by_engine.values()]

values = st.one_of(
    st.floats(),
    st.floats(min_value=0, max_value=1e9),
    st.integers(0, 10**6).map(float),
)
label_values = st.text(
    st.one_of(st.sampled_from('{}"\\,= \n#_'), st.characters(exclude_categories=["Cs", "Cc"])),
    max_size=12,
)
samples = st.tuples(st.sampled_from([*NAMES, *LOOKALIKES]), label_values, values)


def line(name: str, label: str, number: int, value: float) -> str:
    escaped = label.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return f'{name}{{model_name="{escaped}",engine="{number}"}} {value}'


def by_prometheus(page: str, name: str) -> float | None:
    """The sum of *name*'s samples as prometheus_client reads them; None if one is no load."""
    found = [
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name
    ]
    usable = all(math.isfinite(value) and value >= 0 for value in found)
    total = sum(found)
    return total if found and usable and math.isfinite(total) else None


@given(st.lists(samples, max_size=12), st.sampled_from(["vllm", "sglang"]))
def test_reads_what_prometheus_reads(drawn, engine):
    page = "".join(line(*sample[:2], n, sample[2]) + "\n" for n, sample in enumerate(drawn))

    metrics = parse(page.encode(), engine)

    for field, by_engine in SUMMED.items():
        assert getattr(metrics, field) == by_prometheus(page, by_engine[engine])


@given(st.binary(), st.sampled_from(list(ENGINES)))
def test_any_bytes_have_an_answer(page, engine):
    assert isinstance(parse(page, engine), EndpointMetrics)


@given(st.integers(0, VLLM_PAGE_BYTES), st.binary(max_size=20), st.integers(0, 50))
def test_a_damaged_page_says_nothing_impossible(at, noise, lost):
    page = a_vllm_page()

    metrics = parse(page[:at] + noise + page[at + lost :], "vllm")

    for field in EndpointMetrics._fields:
        value = getattr(metrics, field)
        assert value is None or (math.isfinite(value) and value >= 0)
    assert metrics.kv_usage_ratio is None or metrics.kv_usage_ratio <= 1


def test_a_vllm_page_is_read_whole():
    assert parse(a_vllm_page(), "vllm") == EndpointMetrics(
        running_requests=3.0,
        waiting_requests=1.0,
        kv_usage_ratio=0.25,
        kv_capacity_tokens=65536.0,
        generation_tokens=555.0,
        prefix_query_tokens=2200.0,
        prefix_hit_tokens=220.0,
        external_hit_tokens=7.0,
        cache_block_tokens=32.0,
    )


def test_data_parallel_engines_add_up_and_their_usage_is_averaged():
    metrics = parse(a_vllm_page(n_engines=2), "vllm")

    assert metrics.running_requests == 6.0
    assert metrics.kv_capacity_tokens == 131072.0
    assert metrics.kv_usage_ratio == 0.25


def test_one_unreadable_engine_makes_the_sum_unknown():
    page = b'vllm:num_requests_running{engine="0"} 3.0\nvllm:num_requests_running{engine="1 4.0\n'

    assert parse(page, "vllm").running_requests is None


def test_older_vllm_names_are_read():
    page = (
        b"vllm:gpu_cache_usage_perc 0.5\n"
        b'vllm:cache_config_info{block_size="16",num_gpu_blocks="573",num_gpu_blocks_override="None"} 1.0\n'
    )

    metrics = parse(page, "vllm")

    assert metrics.kv_usage_ratio == 0.5
    assert metrics.kv_capacity_tokens == 16 * 573


def test_a_new_name_goes_before_the_old_one():
    page = b"vllm:gpu_cache_usage_perc 0.5\nvllm:kv_cache_usage_perc 0.25\n"

    assert parse(page, "vllm").kv_usage_ratio == 0.25


@pytest.mark.parametrize("usage", ["1.2", "57", "NaN", "+Inf", "-0.1", "1_0", "", "0.5.0"])
def test_an_impossible_usage_is_unknown(usage):
    assert parse(f"vllm:kv_cache_usage_perc {usage}\n".encode(), "vllm").kv_usage_ratio is None


@pytest.mark.parametrize("blocks", ["None", "0", "-1", "nan", "1e400"])
def test_an_impossible_capacity_is_unknown(blocks):
    page = f'vllm:cache_config_info{{block_size="16",num_gpu_blocks="{blocks}"}} 1\n'.encode()

    assert parse(page, "vllm").kv_capacity_tokens is None


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_names_whose_colon_a_collector_replaced_are_read(engine):
    running = {"vllm": "vllm:num_requests_running", "sglang": "sglang:num_running_reqs"}[engine]
    usage = {"vllm": "vllm:kv_cache_usage_perc", "sglang": "sglang:token_usage"}[engine]
    page = f'{running}{{engine="0"}} 3\n{running}{{engine="1"}} 4\n{usage} 0.5\n'.encode()
    replaced = page.replace(b":", b"_")

    assert parse(replaced, engine) == parse(page, engine)
    assert parse(replaced, engine).running_requests == 7
    assert parse(page + replaced, engine) == parse(page, engine)


def test_sglang_ranks_and_priorities_are_counted_once():
    page = b"""
sglang:num_running_reqs{dp_rank="0",tp_rank="0",pp_rank="0",priority=""} 4.0
sglang:num_running_reqs{dp_rank="0",tp_rank="1",pp_rank="0",priority=""} 4.0
sglang:num_running_reqs{dp_rank="0",tp_rank="0",pp_rank="0",priority="7"} 3.0
sglang:num_running_reqs{dp_rank="1",tp_rank="2",pp_rank="0",priority=""} 2.0
sglang:num_queue_reqs{model_name="m"} 5.0
sglang:token_usage{model_name="m"} 0.74
sglang:cache_config_info{page_size="64",num_pages="100"} 1.0
sglang:prompt_tokens_total{model_name="m"} 1000.0
sglang:cached_tokens_total{cache_source="device"} 300.0
sglang:cached_tokens_total{cache_source="host"} 100.0
"""

    assert parse(page, "sglang") == EndpointMetrics(
        running_requests=6.0,
        waiting_requests=5.0,
        kv_usage_ratio=0.74,
        kv_capacity_tokens=6400.0,
        prefix_query_tokens=1000.0,
        prefix_hit_tokens=400.0,
        cache_block_tokens=64.0,
    )


RANKS = ("tp_rank", "pp_rank", "cp_rank", "attn_cp_rank", "moe_ep_rank", "moe_dp_rank", "pid")


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize(
    ("engine", "name"),
    [("sglang", "sglang:num_running_reqs"), ("vllm", "vllm:num_requests_running")],
)
def test_ranks_that_repeat_each_other_count_once(rank, engine, name):
    page = "".join(f'{name}{{model_name="m",{rank}="{i}"}} 5.0\n' for i in range(8))
    assert parse(page.encode(), engine).running_requests == 5.0


@pytest.mark.parametrize("label", ["engine", "dp_rank", "model_name"])
@pytest.mark.parametrize(
    ("engine", "name"),
    [("sglang", "sglang:num_running_reqs"), ("vllm", "vllm:num_requests_running")],
)
def test_engines_data_parallel_ranks_and_models_add_up(label, engine, name):
    page = "".join(
        f'{name}{{{label}="{i}",tp_rank="{rank}"}} {i + 1}.0\n'
        for i in range(3)
        for rank in range(2)
    )
    assert parse(page.encode(), engine).running_requests == 6.0


def test_of_series_that_repeat_each_other_the_largest_counts():
    page = b"""
sglang:num_running_reqs{cp_rank="0"} NaN
sglang:num_running_reqs{cp_rank="1"} 4.0
sglang:num_running_reqs{cp_rank="2"} 3.0
sglang:token_usage{dp_rank="0",cp_rank="0"} 0.2
sglang:token_usage{dp_rank="0",cp_rank="1"} 0.4
sglang:token_usage{dp_rank="1",cp_rank="0"} 0.6
"""
    metrics = parse(page, "sglang")
    assert metrics.running_requests == 4.0
    assert metrics.kv_usage_ratio == pytest.approx(0.5)


def test_a_data_parallel_engine_that_says_nan_makes_the_sum_unknown():
    page = b"""
vllm:num_requests_running{engine="0"} 2.0
vllm:num_requests_running{engine="1"} NaN
vllm:num_requests_waiting{engine="0"} 0.0
vllm:num_requests_waiting{engine="1"} 4.0
"""
    metrics = parse(page, "vllm")
    assert metrics.running_requests is None
    assert metrics.waiting_requests == 4.0


def test_capacities_of_engines_add_up_and_their_blocks_do_not():
    line = (
        'vllm:cache_config_info{{block_size="784",enable_prefix_caching="{}",engine="{}",'
        'kv_cache_size_tokens="78400",num_gpu_blocks="100"}} 1.0\n'
    )
    page = line.format("True", 0) + line.format("True", 1)
    metrics = parse(page.encode(), "vllm")
    assert metrics.kv_capacity_tokens == 156_800.0
    assert metrics.cache_block_tokens == 784.0
    assert metrics.prefix_caching == 1.0


@pytest.mark.parametrize(
    ("told", "caches"),
    [("True", 1.0), ("False", 0.0), ("true", 1.0), ("0", 0.0), ("None", None), ("", None)],
)
def test_whether_prefixes_are_cached_is_told_or_unknown(told, caches):
    page = f'vllm:cache_config_info{{block_size="16",enable_prefix_caching="{told}"}} 1\n'
    assert parse(page.encode(), "vllm").prefix_caching == caches


SLEEP = 'vllm:engine_sleep_state{{engine="{}",sleep_state="{}"}} {}\n'


@pytest.mark.parametrize(
    ("states", "awake"),
    [
        ([(0, "awake", 1.0), (0, "weights_offloaded", 0.0), (0, "discard_all", 0.0)], 1.0),
        ([(0, "awake", 0.0), (0, "weights_offloaded", 1.0), (0, "discard_all", 0.0)], 0.0),
        ([(0, "awake", 0.0), (0, "weights_offloaded", 0.0), (0, "discard_all", 1.0)], 0.0),
        ([(0, "awake", 1.0), (1, "awake", 0.0)], 0.0),  # one of two
        ([(0, "awake", "NaN")], None),
        ([], None),
    ],
)
def test_an_engine_that_sleeps_says_so(states, awake):
    page = "".join(SLEEP.format(*state) for state in states)
    assert parse(page.encode(), "vllm").awake == awake


def test_trtllm_serve_is_read():
    page = b"""
trtllm_num_requests_running{model_name="m"} 3.0
trtllm_num_requests_waiting{model_name="m"} 2.0
trtllm_kv_cache_utilization{model_name="m"} 0.62
trtllm_kv_cache_max_blocks{model_name="m"} 100
trtllm_kv_cache_tokens_per_block{model_name="m"} 32
"""

    assert parse(page, "trtllm") == EndpointMetrics(
        running_requests=3.0, waiting_requests=2.0, kv_usage_ratio=0.62, kv_capacity_tokens=3200.0
    )


def test_triton_is_read_by_its_labels():
    page = b"""
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 1
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="scheduled",version="1"} 2
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="max",version="1"} 512
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per",model="tensorrt_llm"} 64
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="tensorrt_llm"} 0.1
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="tensorrt_llm"} 6239
"""

    assert parse(page, "triton") == EndpointMetrics(
        running_requests=2.0,
        waiting_requests=1.0,
        kv_usage_ratio=0.1,
        kv_capacity_tokens=64 * 6239,
    )


def test_triton_with_another_backend_says_how_many_wait():
    page = b"""
nv_inference_pending_request_count{model="a",version="1"} 3
nv_inference_pending_request_count{model="b",version="1"} 4
"""

    assert parse(page, "triton") == EndpointMetrics(waiting_requests=7.0)


def test_more_series_than_any_engine_has_are_not_added_up():
    page = "".join(f'vllm:num_requests_running{{engine="{i}"}} 1\n' for i in range(1025))
    metrics = parse((page + "vllm:num_requests_waiting 2\n").encode(), "vllm")
    assert (metrics.running_requests, metrics.waiting_requests) == (None, 2.0)


def test_an_unknown_engine_says_nothing():
    assert parse(a_vllm_page(), "abacus") == EndpointMetrics()


def test_a_vllm_page_costs_well_under_a_millisecond():
    page = a_vllm_page()

    assert min(seconds(page) for _ in range(20)) < 0.0005


@pytest.mark.parametrize(
    "filler", [b'vllm:num_requests_running{a="\\', b"\nvllm:num_requests_", b'"']
)
def test_time_is_linear_in_the_page(filler):
    page = b"vllm:num_requests_running{" + filler * (2_000_000 // len(filler))

    assert min(seconds(page) for _ in range(3)) < 1.0


def seconds(page: bytes) -> float:
    started_at_s = time.perf_counter()
    parse(page, "vllm")
    return time.perf_counter() - started_at_s


LORA = 'vllm:lora_requests_info{{max_lora="{}",running_lora_adapters="{}",waiting_lora_adapters="{}"}} {}\n'


@pytest.mark.parametrize(
    ("series", "adapters"),
    [
        (
            [("2", "a, b", "c", 1.0)],
            Adapters(frozenset(("a", "b")), frozenset(("c",)), 2.0),
        ),
        ([("2", "", "", 1.0)], Adapters(frozenset(), frozenset(), 2.0)),
        # The value is the time of a sample, and old ones stay on the page.
        (
            [("1", "new", "", 1.7e9 + 5), ("1", "old", "", 1.7e9)],
            Adapters(frozenset(("new",)), frozenset(), 1.0),
        ),
        ([("many", "a", "", "NaN")], Adapters(frozenset(("a",)), frozenset(), 0.0)),
        ([], None),
    ],
)
def test_the_newest_sample_tells_the_adapters(series, adapters):
    page = "".join(LORA.format(*each) for each in series) + "vllm:num_requests_running 1\n"
    assert parse(page.encode(), "vllm").adapters == adapters


def test_an_engine_that_tells_no_adapters_has_none_to_tell():
    assert parse(LORA.format("1", "a", "", 1.0).encode(), "sglang").adapters is None
