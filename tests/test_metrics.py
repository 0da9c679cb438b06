import time
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from lodestar_extproc.completion import Outcome
from lodestar_extproc.fleet.health_state import HealthState
from lodestar_extproc.gain.capacity_watch import CapacityWatch
from lodestar_extproc.gain.compared import Gain
from lodestar_extproc.metrics.capacity import CapacityCollector
from lodestar_extproc.metrics.docs import all_metrics, metrics_page
from lodestar_extproc.metrics.exposition import MAX_SAMPLES
from metrics_world import World

DOCS = Path(__file__).parents[1] / "docs" / "metrics.md"
POOL = {"pool": "pool"}


def samples(world: World) -> dict[tuple[str, frozenset], float]:
    families = text_string_to_metric_families(world.metrics.page().decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(world: World, name: str, **labels) -> float | None:
    return samples(world).get((name, frozenset(labels.items())))


def test_the_page_of_metrics_is_what_the_code_says():
    assert DOCS.read_text() == metrics_page(), (
        "run: python -m lodestar_extproc.metrics > docs/metrics.md"
    )


@pytest.mark.parametrize("metric", all_metrics(), ids=lambda metric: metric.name)
def test_every_metric_says_what_it_is_and_what_to_do(metric):
    assert metric.text.endswith(".")
    assert metric.action.endswith(".")
    assert metric.name.startswith("lodestar_")
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert bool(metric.buckets) == (metric.kind == "histogram")


def test_metric_names_are_unique():
    names = [metric.name for metric in all_metrics()]

    assert len(set(names)) == len(names)


def test_everything_declared_is_shown_and_nothing_else():
    watch = CapacityWatch(lambda: world.router.settings, lambda: world.now_s)
    asked = {"shadow_policies": ("random",), "burn_in_samples": 1, "ttft_slo_s": 5.0}
    world = World(listeners=[watch], **asked)
    world.metrics.show(CapacityCollector({"pool": watch}))
    world.serve(60)
    world.scraped(running_requests=3.0, waiting_requests=1.0, kv_usage_ratio=0.5)
    world.end(world.decide(), decision_id="", stream_id="")
    world.end(world.decide(stream_id="s"), decision_id="", stream_id="s")
    world.end(world.decide(), attempts=3, prompt_tokens=100, cached_tokens=60)
    world.metrics.decided(world.decide()._replace(held_s=0.3))
    world.metrics.watch_gains(
        lambda: {"pool": [Gain("p", "shadow", 9, 0.5, 1.0, 2.0, 0.5, 0.4, 0.6)]}
    )
    world.metrics.stream_opened()
    world.metrics.message("request_headers")
    world.metrics.stream_closed("chosen")
    world.metrics.messages_repeated(2)
    world.metrics.share_state("pool", "shared", 1)
    world.metrics.frames("pool", "sent")
    world.metrics.body_over_budget("items")
    world.metrics.stream_failed("protocol")
    world.metrics.log_entry("served")
    world.metrics.loop_lag(0.001)
    world.metrics.config_reloaded("refused")
    world.metrics.journal_entries("written", 3)

    shown = {
        name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
        for name, _ in samples(world)
    }
    of_ours = {name for name in shown if not name.startswith("process_")}
    assert of_ours == {metric.name for metric in all_metrics()}
    assert value(world, "lodestar_repeated_messages_total") == 2


def test_a_decision_is_counted_by_policy_and_reason_and_endpoint():
    world = World(policy="round_robin")
    decision = world.decide()

    labels = {**POOL, "policy": "round_robin", "reason": "policy"}
    assert value(world, "lodestar_decisions_total", **labels) == 1
    chosen = {**POOL, "endpoint": decision.addresses[0]}
    assert value(world, "lodestar_endpoint_decisions_total", **chosen) == 1
    assert value(world, "lodestar_endpoint_prefill_requests", **chosen) == 1
    assert value(world, "lodestar_open_decisions", **POOL) == 1


def test_a_decision_is_timed_from_the_arrival_of_the_body():
    world = World(policy="random")
    world.decide(took_s=0.003)

    assert value(world, "lodestar_decision_seconds_sum", **POOL) == pytest.approx(0.003)


def test_expected_hits_are_counted_in_tokens():
    world = World(1, policy="random")
    world.serve(2, prompt=b"y" * 4000)

    assert value(world, "lodestar_prompt_tokens_total", **POOL) == 2000
    assert value(world, "lodestar_predicted_hit_tokens_total", **POOL) == pytest.approx(992)


def test_ttft_counts_for_the_endpoint_that_served():
    world = World(policy="random")
    decision = world.decide()
    served = decision.addresses[1]
    world.first_token(decision, 0.7, served=served)

    assert value(world, "lodestar_ttft_seconds_sum", **POOL, endpoint=served) == pytest.approx(0.7)
    assert value(world, "lodestar_ttft_seconds_sum", **POOL, endpoint=decision.addresses[0]) is None


def test_without_an_observer_ttft_is_the_access_logs():
    world = World(policy="random")
    decision = world.decide()
    world.end(decision, ttft_s=0.25)

    labels = {**POOL, "endpoint": decision.addresses[0]}
    assert value(world, "lodestar_ttft_seconds_sum", **labels) == 0.25


def test_ttft_is_counted_once():
    world = World(policy="random")
    decision = world.decide()
    world.first_token(decision, 0.5)
    world.end(decision, ttft_s=0.25)

    labels = {**POOL, "endpoint": decision.addresses[0]}
    assert value(world, "lodestar_ttft_seconds_count", **labels) == 1


def test_an_answer_in_one_piece_has_no_ttft():
    world = World(policy="random")
    decision = world.decide(streaming=False)
    world.first_token(decision)
    world.end(decision, ttft_s=0.25)

    labels = {**POOL, "endpoint": decision.addresses[0]}
    assert value(world, "lodestar_ttft_seconds_count", **labels) is None


def test_a_prediction_is_compared_with_what_was_observed():
    world = World(2, burn_in_samples=1)
    world.serve(30)
    before = value(world, "lodestar_ttft_error_ratio_sum", **POOL)
    decision = world.decide()
    predicted_s = float(decision.ranking.predicted_ttft_s[decision.chosen])
    world.first_token(decision, 2 * predicted_s)

    assert value(world, "lodestar_ttft_error_ratio_sum", **POOL) - before == pytest.approx(0.5)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_ends_are_counted_by_outcome(outcome):
    world = World(policy="random")
    world.end(world.decide(), outcome)

    assert value(world, "lodestar_requests_total", **POOL, outcome=outcome) == 1


def test_a_choice_that_came_too_late_is_counted():
    world = World(policy="random")
    world.end(world.decide(stream_id="s"), decision_id="", stream_id="s")

    assert value(world, "lodestar_unused_decisions_total", **POOL) == 1


def test_expired_requests_are_not_called_unused():
    world = World(policy="random", request_timeout_s=10.0)
    world.decide()
    world.router.expire(world.now_s + 11)

    assert value(world, "lodestar_requests_total", **POOL, outcome="expired") == 1
    assert value(world, "lodestar_unused_decisions_total", **POOL) == 0


def test_what_an_engine_does_not_say_is_left_out():
    world = World(policy="random")
    address = world.scraped(running_requests=3.0)

    labels = {**POOL, "endpoint": address}
    assert value(world, "lodestar_engine_running_requests", **labels) == 3
    assert value(world, "lodestar_engine_waiting_requests", **labels) is None
    assert value(world, "lodestar_endpoint_scrape_age_seconds", **labels) == 0


def test_a_stale_value_is_left_out_but_its_age_is_shown():
    world = World(policy="random", scrape_stale_s=2.0)
    address = world.scraped(running_requests=3.0)
    world.now_s += 10

    labels = {**POOL, "endpoint": address}
    assert value(world, "lodestar_engine_running_requests", **labels) is None
    assert value(world, "lodestar_endpoint_scrape_age_seconds", **labels) == 10


def test_an_endpoint_is_in_one_state():
    world = World(policy="random")
    address = world.router.fleet.endpoints[0].address
    world.router.fleet.record_probe(address, False, 1.0)
    world.router.fleet.record_probe(address, False, 2.0)

    shown = {
        dict(labels)["state"]: number
        for (name, labels), number in samples(world).items()
        if name == "lodestar_endpoint_state" and dict(labels)["endpoint"] == address
    }
    assert shown.pop("down") == 1
    assert set(shown.values()) == {0}
    assert shown.keys() == {str(state) for state in HealthState} - {"down"}


def test_what_is_believed_of_a_cache_is_shown():
    world = World(policy="random")
    off = world.scraped(1, prefix_caching=0.0)
    world.scraped(2, prefix_caching=1.0)

    name = "lodestar_endpoint_cache_belief_ratio"
    believed = [value(world, name, **POOL, endpoint=off)]
    believed += [
        value(world, name, **POOL, endpoint=e.address) for e in world.router.fleet.endpoints[1:]
    ]
    assert believed == [0.0, 1.0, 1.0]


def test_series_of_an_endpoint_that_left_disappear():
    world = World(2, policy="round_robin")
    world.serve(4)
    gone = world.router.fleet.endpoints[0].address
    world.router.set_endpoints(world.router.fleet.endpoints[1:])

    assert gone not in world.metrics.page().decode()


def test_open_streams_go_up_and_down():
    world = World()
    world.metrics.stream_opened()
    world.metrics.stream_opened()
    world.metrics.stream_closed("observed")

    assert value(world, "lodestar_open_streams") == 1
    assert value(world, "lodestar_streams_total", verdict="observed") == 1


def test_nothing_grows_with_requests():
    world = World(policy="round_robin")
    world.serve(100)
    n_series = len(samples(world))
    world.serve(200)

    assert len(samples(world)) == n_series


def test_listening_costs_a_request_a_few_microseconds():
    world = World(policy="random")
    decision = world.decide()
    metrics = world.metrics

    def listen() -> float:
        started_at_s = time.perf_counter()
        for _ in range(200):
            metrics.decided(decision)
            metrics.stream_opened()
            metrics.message("request_headers")
            metrics.message("request_body")
            metrics.stream_closed("chosen")
        return (time.perf_counter() - started_at_s) / 200

    assert min(listen() for _ in range(10)) < 50e-6


def test_a_large_fleet_is_shown_in_small_pieces_that_make_the_same_page():
    world = World(300)
    for _ in range(20):
        world.end(world.decide())
    parts = list(world.metrics.pieces()[1])
    page = b"".join(parts).decode()
    described = [line for line in page.splitlines() if line.startswith("# TYPE")]

    assert max(part.count(b"\n") for part in parts) <= MAX_SAMPLES + 2
    assert len(described) == len(set(described))
    families = list(text_string_to_metric_families(page))
    states = next(f for f in families if f.name == "lodestar_endpoint_state")
    assert len(states.samples) == 300 * len(HealthState)
    assert len(families) == len(described)


def test_times_to_first_token_have_the_buckets_of_vllms_own():
    world = World(policy="random")
    world.serve(1, ttft_s=100.0)
    bounds = [
        float(dict(labels)["le"])
        for name, labels in samples(world)
        if name == "lodestar_ttft_seconds_bucket"
    ]

    assert sorted(set(bounds)) == [
        *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
        *(10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0, float("inf")),
    ]


def test_who_asks_for_openmetrics_gets_decision_ids_beside_the_buckets():
    world = World(policy="random")
    decision = world.decide()
    world.first_token(decision, 0.3)
    page = world.metrics.page("application/openmetrics-text; version=1.0.0").decode()

    assert page.endswith("# EOF\n")
    assert page.count("# EOF") == 1
    families = {f.name: f for f in openmetrics_families(page)}
    found = [s.exemplar for s in families["lodestar_ttft_seconds"].samples if s.exemplar]
    assert [(each.labels, each.value) for each in found] == [
        ({"decision_id": decision.decision_id}, pytest.approx(0.3))
    ]


def test_who_does_not_ask_gets_none():
    world = World(policy="random")
    world.serve(3)

    assert "decision_id" not in world.metrics.page().decode()
    assert "# EOF" not in world.metrics.page("text/plain").decode()


def test_a_large_fleet_is_a_page_of_openmetrics_too():
    world = World(300)
    world.serve(3)
    page = world.metrics.page("application/openmetrics-text").decode()

    assert len(list(openmetrics_families(page))) > 30
