"""What an engine says of its own cache bounds what is believed to be there."""

from __future__ import annotations

import pytest

from builders import a_fleet, a_request, dispatch, some_blocks
from lodestar_extproc.endpoint import EndpointMetrics
from lodestar_extproc.fleet.cache_belief import CacheBelief
from lodestar_extproc.fleet.engine_metrics import parse
from lodestar_extproc.fleet.health_state import HealthState

A = "10.0.0.1:8000"
PREFIX = some_blocks(64)  # 1024 tokens


class Engine:
    """One endpoint whose engine's counters say what it is told to say."""

    def __init__(self, **metrics: float) -> None:
        self.fleet = a_fleet(1)
        self.queries = self.hits = 0.0
        self._metrics = metrics
        self._n = 0
        self.scrape()

    def scrape(self, **changes: float) -> None:
        self._metrics |= changes
        counters = {"prefix_query_tokens": self.queries, "prefix_hit_tokens": self.hits}
        self.fleet.record_metrics(A, EndpointMetrics(**counters | self._metrics), float(self._n))

    def serve(self, n: int, *, hit_ratio: float = 1.0, queries_ratio: float = 1.0, **end) -> None:
        """*n* prompts of 2000 tokens, of which 1024 are the same; then a scrape of each."""
        for _ in range(n):
            self._n += 1
            request = a_request(PREFIX + some_blocks(61, seed=self._n))
            expected = 1024.0 if self._n > 1 else 0.0
            dispatch(self.fleet, f"d{self._n}", A, request, float(self._n))
            self.queries += queries_ratio * request.prompt_tokens
            self.hits += hit_ratio * expected
            self.fleet.first_token(f"d{self._n}", self._n + 0.1)
            self.fleet.release(f"d{self._n}", self._n + 0.2, **end)
            self.scrape()

    @property
    def believed(self) -> float:
        """Of the 1024 tokens that another such prompt shares."""
        request = a_request(PREFIX + some_blocks(61, seed=9999))
        return float(self.fleet.match(request, self.fleet.endpoints).tokens[0])


# -- blocks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_tokens", "block_tokens", "found"),
    [
        (464, 528.0, 0.0),
        (1024, 528.0, 528.0),
        (1056, 528.0, 1056.0),
        (1600, 528.0, 1584.0),
        (1024, 64.0, 1024.0),
        (1040, 64.0, 1024.0),
        # As fine as ours, or nearly: a token's bytes are uncertain by more.
        (1040, 16.0, 1040.0),
        (1040, 24.0, 1040.0),
        (1040, None, 1040.0),
    ],
)
def test_a_match_counts_in_whole_blocks_of_the_engines_own(n_tokens, block_tokens, found):
    fleet, shared = a_fleet(1), some_blocks(n_tokens // 16)
    dispatch(fleet, "d", A, a_request(shared))
    fleet.record_metrics(A, EndpointMetrics(cache_block_tokens=block_tokens), 0.0)

    match = fleet.match(a_request(shared + some_blocks(40, seed=1)), fleet.endpoints)

    n_blocks = n_tokens // 16 + 40
    assert match.tokens.tolist() == [found]
    assert match.ratio.tolist() == [pytest.approx(found / 16 / n_blocks)]
    assert match.sent_ratio.tolist() == match.kept_ratio.tolist()
    assert match.kept_ratio.tolist() == [pytest.approx(n_tokens / 16 / n_blocks)]


def test_of_a_prompt_that_fills_its_blocks_the_last_one_is_computed():
    fleet, request = a_fleet(1), a_request(some_blocks(66))  # twice 528 tokens
    dispatch(fleet, "d", A, request)
    fleet.record_metrics(A, EndpointMetrics(cache_block_tokens=528.0), 0.0)
    assert fleet.match(request, fleet.endpoints).tokens.tolist() == [528.0]


def test_a_hybrid_models_page_bounds_what_is_matched():
    page = (
        'vllm:cache_config_info{block_size="528",enable_prefix_caching="True",engine="0",'
        'kv_cache_size_tokens="264000",num_gpu_blocks="500"} 1.0\n'
    )
    fleet, prefix = a_fleet(1), some_blocks(80)
    dispatch(fleet, "d", A, a_request(prefix))
    fleet.record_metrics(A, parse(page.encode(), "vllm"), 0.0)

    def matched(n_tokens: int) -> float:
        """Of a prompt that begins with so many tokens of the first one."""
        request = a_request(prefix[: 4 * n_tokens] + some_blocks(60, seed=1))
        return float(fleet.match(request, fleet.endpoints).tokens[0])

    assert [matched(474), matched(527), matched(1027), matched(1060)] == [0.0, 0.0, 528.0, 1056.0]


# -- no cache at all ----------------------------------------------------------------------------------


def test_an_engine_without_prefix_caching_is_believed_to_hold_nothing():
    engine = Engine()
    engine.serve(3)
    assert engine.believed == 1024.0

    engine.scrape(prefix_caching=0.0)

    assert engine.believed == 0.0
    assert not engine.fleet.endpoints[0].prefix_caching
    assert not engine.fleet.snapshot(9.0).endpoints[0].prefix_caching
    engine.serve(3)
    assert engine.believed == 0.0
    assert engine.fleet.n_in_flight == 0

    engine.scrape(prefix_caching=1.0)  # restarted with it
    assert engine.believed == 0.0
    engine.serve(1)
    assert engine.believed == 1024.0


def test_a_page_that_does_not_say_leaves_it_as_it_was():
    engine = Engine(prefix_caching=0.0)
    engine.scrape(prefix_caching=None)
    engine.fleet.set_endpoints(engine.fleet.endpoints)
    engine.serve(3)
    assert engine.believed == 0.0


# -- hits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hit_ratio", [1.0, 0.8, 0.55])
def test_where_the_engine_finds_about_what_was_expected_all_is_believed(hit_ratio):
    engine = Engine()
    engine.serve(200, hit_ratio=hit_ratio)
    assert engine.believed == 1024.0


def test_where_the_engine_finds_nothing_little_is_believed_and_ever_less():
    engine, believed = Engine(), []
    for _ in range(5):
        engine.serve(10, hit_ratio=0.0)
        believed.append(engine.believed)
    assert believed == sorted(believed, reverse=True)
    assert believed[1] < 0.45 * 1024
    engine.serve(200, hit_ratio=0.0)
    assert engine.believed < 0.1 * 1024


def test_what_is_not_believed_is_not_kept_there_either():
    engine = Engine()
    request = a_request(PREFIX + some_blocks(61, seed=9999))
    engine.serve(3)
    before = engine.fleet.match(request, engine.fleet.endpoints)
    engine.serve(200, hit_ratio=0.0)
    after = engine.fleet.match(request, engine.fleet.endpoints)

    assert before.kept_ratio.tolist() == before.ratio.tolist() == [64 / 125]
    assert after.sent_ratio.tolist() == before.sent_ratio.tolist()
    assert after.kept_ratio.tolist() == pytest.approx(after.ratio.tolist())
    assert after.kept_ratio[0] < 0.1 * 64 / 125


def test_a_quarter_found_is_half_believed():
    engine = Engine()
    engine.serve(400, hit_ratio=0.25)
    assert engine.believed == pytest.approx(512, rel=0.1)


def test_a_cache_that_works_again_is_believed_again():
    engine = Engine()
    engine.serve(200, hit_ratio=0.0)
    engine.serve(250, hit_ratio=1.0)
    assert engine.believed == 1024.0


def test_a_few_prompts_prove_nothing():
    engine = Engine()
    engine.serve(4, hit_ratio=0.0)
    assert engine.believed == 1024.0


def test_counters_that_lag_behind_prove_nothing():
    engine = Engine()
    engine.serve(50, hit_ratio=0.0, queries_ratio=0.3)
    assert engine.believed == 1024.0


def test_other_clients_of_the_engine_take_no_belief():
    engine = Engine()
    for _ in range(100):
        engine.serve(1)
        engine.queries += 50_000.0  # theirs, of which nothing is found
    assert engine.believed == 1024.0


def test_what_a_cache_beside_the_engine_holds_is_found_too():
    engine = Engine(external_hit_tokens=0.0)
    for number in range(100):
        engine.scrape(external_hit_tokens=1024.0 * number)
        engine.serve(1, hit_ratio=0.0)
    assert engine.believed == 1024.0


def test_a_restart_begins_a_new_count():
    engine = Engine()
    engine.serve(50)
    engine.queries = engine.hits = 0.0
    engine.scrape()
    engine.serve(3)
    assert engine.believed == 1024.0


def test_usage_tells_the_same_without_counters():
    engine = Engine(prefix_query_tokens=None, prefix_hit_tokens=None)
    engine.serve(60, cached_ratio=0.0)
    assert engine.believed < 0.2 * 1024
    engine.serve(250, cached_ratio=0.5)
    assert engine.believed == 1024.0


def test_an_engine_that_finds_more_than_was_sent_there_earns_no_more_than_belief():
    belief = CacheBelief()
    belief.found("a", 10_000.0, 90_000.0)
    belief.found("a", 10_000.0, 0.0)
    assert belief.ratio("a") == 1.0
    belief.found("a", 40_000.0, 0.0)
    assert belief.ratio("a") < 1.0


def test_belief_is_an_endpoints_own_and_leaves_with_it():
    belief = CacheBelief()
    belief.found("a", 100_000.0, 0.0)
    assert (belief.ratio("a") < 0.2, belief.ratio("b"), belief.is_whole) == (True, 1.0, False)
    belief.keep({"b"})
    assert (belief.ratio("a"), belief.is_whole) == (1.0, True)


# -- sleep --------------------------------------------------------------------------------------------


def test_a_sleeping_engine_is_not_chosen_until_it_is_awake():
    fleet = a_fleet(2)
    fleet.record_metrics(A, EndpointMetrics(awake=0.0), 1.0)
    assert fleet.health.state(A, 1.0) is HealthState.SLEEPING
    assert [e.address for e in fleet.snapshot(1.0).endpoints] == ["10.0.0.2:8000"]

    fleet.record_metrics(A, EndpointMetrics(awake=1.0), 2.0)
    assert fleet.health.state(A, 2.0) is HealthState.HEALTHY
    assert len(fleet.snapshot(2.0)) == 2


def test_sleep_empties_the_cache_once():
    engine = Engine()
    engine.serve(3)
    engine.scrape(awake=0.0)
    assert engine.believed == 0.0
    engine.serve(1)
    engine.scrape(awake=0.0)
    assert engine.believed == 1024.0


def test_where_all_sleep_all_are_routable():
    fleet = a_fleet(2)
    for endpoint in fleet.endpoints:
        fleet.record_metrics(endpoint.address, EndpointMetrics(awake=0.0), 1.0)
    assert len(fleet.snapshot(1.0)) == 2
