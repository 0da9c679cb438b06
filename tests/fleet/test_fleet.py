import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import a_fleet, a_prompt, a_request, an_endpoint, dispatch, live_settings
from lodestar_extproc.endpoint import EndpointMetrics
from lodestar_extproc.fleet.health_state import HealthState
from lodestar_extproc.fleet.prefix_caches import PrefixCaches

COUNTERS = (
    "prefill_requests",
    "prefill_uncached_tokens",
    "prefill_prompt_tokens",
    "prefill_pairs",
    "decode_requests",
    "decode_context_tokens",
    "head_uncached_tokens",
)
A, B, C = (f"10.0.0.{i}:8000" for i in (1, 2, 3))


def all_zero(snapshot) -> bool:
    return all((getattr(snapshot, name) == 0.0).all() for name in COUNTERS)


events = st.tuples(
    st.sampled_from(["dispatch", "expected", "first", "elsewhere", "release", "undo", "leave"]),
    st.integers(0, 9),
    st.integers(0, 2),
    st.floats(0.5, 9_000),
)


@settings(max_examples=200)
@given(st.lists(events, max_size=60))
def test_whatever_happens_every_counter_returns_to_zero(history):
    fleet = a_fleet(3)
    for step, (event, number, place, tokens) in enumerate(history):
        at_s, decision_id, address = step * 0.1, f"d{number}", f"10.0.0.{place + 1}:8000"
        request = a_request(a_prompt(50, number), prompt_tokens=tokens)
        match event:
            case "dispatch":
                dispatch(fleet, decision_id, address, request, at_s)
            case "expected":
                dispatch(
                    fleet, decision_id, address, request, at_s, expected_first_token_at_s=at_s + 1
                )
            case "first":
                fleet.first_token(decision_id, at_s)
            case "elsewhere":
                fleet.first_token(decision_id, at_s, served=address)
            case "release":
                fleet.release(decision_id, at_s)
            case "undo":
                fleet.release(decision_id, at_s, prompt_computed=False)
            case "leave":
                fleet.set_endpoints(e for e in fleet.endpoints if e.address != address)
                fleet.set_endpoints(an_endpoint(i + 1) for i in range(3))
        snapshot = fleet.everything(at_s)  # those too that joined and are not yet known to serve
        assert (snapshot.prefill_requests + snapshot.decode_requests).sum() == fleet.n_in_flight
        assert all((getattr(snapshot, name) >= -1e-6).all() for name in COUNTERS)
    for number in range(10):
        fleet.release(f"d{number}", 99.0)

    assert fleet.n_in_flight == 0
    assert all_zero(fleet.everything(99.0))


def test_a_request_counts_as_prefill_then_as_decode_then_not_at_all():
    fleet = a_fleet(2)
    dispatch(fleet, "d", A, uncached_tokens=600.0, at_s=1.0)
    snapshot = fleet.snapshot(1.5)
    assert snapshot.prefill_requests.tolist() == [1, 0]
    assert snapshot.prefill_uncached_tokens.tolist() == [600, 0]
    assert snapshot.prefill_pairs[0] == 600 * (1000 - 300)
    assert snapshot.head_dispatched_at_s[0] == 1.0

    fleet.first_token("d", 2.0)
    snapshot = fleet.snapshot(4.0)
    assert snapshot.prefill_requests.tolist() == [0, 0]
    assert snapshot.decode_requests.tolist() == [1, 0]
    assert snapshot.decode_context_tokens[0] == pytest.approx(1000 + 33 * 2.0)

    fleet.release("d", 5.0)
    assert all_zero(fleet.snapshot(5.0))


def test_events_come_twice_and_count_once():
    fleet = a_fleet(1)
    for _ in range(2):
        dispatch(fleet, "d", A)
    for _ in range(2):
        fleet.first_token("d", 1.0)
    assert fleet.snapshot(1.0).decode_requests.tolist() == [1]

    for _ in range(2):
        fleet.release("d", 2.0)
    assert all_zero(fleet.snapshot(2.0))


def test_a_retry_moves_the_request_and_its_prompt_to_who_served_it():
    fleet, request = a_fleet(2), a_request()
    dispatch(fleet, "d", A, request)
    fleet.first_token("d", 1.0, served=B)

    assert fleet.snapshot(1.0).decode_requests.tolist() == [0, 1]
    assert fleet.match(request, fleet.endpoints)[1].tolist() == [0.0, 1.0]
    fleet.release("d", 2.0, served=B)
    assert fleet.everything(2.0).in_flight.tolist() == [0, 0]


def test_who_served_has_the_prompt_though_nobody_saw_its_first_token():
    fleet, request = a_fleet(2), a_request()
    dispatch(fleet, "d", A, request)
    fleet.release("d", 1.0, served=B)

    assert fleet.match(request, fleet.endpoints)[1].tolist() == [0.0, 1.0]
    assert fleet.everything(2.0).in_flight.tolist() == [0, 0]


def test_an_unseen_first_token_is_taken_as_given_when_expected():
    fleet = a_fleet(1)
    dispatch(fleet, "d", A, at_s=0.0, expected_first_token_at_s=2.0)
    assert fleet.snapshot(1.9).prefill_requests.tolist() == [1]

    assert fleet.snapshot(2.1).decode_requests.tolist() == [1]


def test_a_prompt_that_never_reached_the_cache_is_no_hit():
    fleet, request = a_fleet(1), a_request()
    dispatch(fleet, "d", A, request)
    fleet.release("d", 1.0, prompt_computed=False)

    assert fleet.match(request, fleet.endpoints)[0].tolist() == [0.0]


def test_a_full_hit_still_leaves_one_token_to_compute():
    fleet, request = a_fleet(1), a_request(b"x" * 6400)
    dispatch(fleet, "d", A, request)

    assert fleet.match(request, fleet.endpoints)[0].tolist() == [1599.0]


def test_a_stale_scrape_is_unknown_and_never_zero():
    fleet = a_fleet(1, scrape_stale_s=2.0)
    assert np.isnan(fleet.snapshot(0.0).waiting_requests[0])

    fleet.record_metrics(A, EndpointMetrics(running_requests=3.0, waiting_requests=5.0), 10.0)
    assert fleet.snapshot(11.0).waiting_requests[0] == 5.0
    assert np.isnan(fleet.snapshot(11.0).kv_usage_ratio[0])
    assert np.isnan(fleet.snapshot(12.5).waiting_requests[0])


def test_an_engine_is_at_rest_while_nothing_is_sent_and_its_page_says_so():
    fleet = a_fleet(1)
    assert not fleet.at_rest(A)  # it has said nothing yet
    fleet.record_metrics(A, EndpointMetrics(running_requests=0.0, waiting_requests=0.0), 0.0)
    assert fleet.at_rest(A)
    assert not fleet.at_rest(B)  # no member

    dispatch(fleet, "d", A, at_s=1.0)
    assert not fleet.at_rest(A)
    fleet.first_token("d", 1.1)
    assert not fleet.at_rest(A)
    fleet.release("d", 1.2)
    assert fleet.at_rest(A)


@pytest.mark.parametrize(
    "said",
    [
        EndpointMetrics(running_requests=1.0, waiting_requests=0.0),  # others' requests
        EndpointMetrics(running_requests=0.0, waiting_requests=1.0),
        EndpointMetrics(),
    ],
)
def test_an_engine_with_work_of_others_or_that_does_not_say_is_not_at_rest(said):
    fleet = a_fleet(1)
    fleet.record_metrics(A, said, 0.0)
    assert not fleet.at_rest(A)


def test_a_page_after_rest_says_nothing_of_the_decode_rate():
    fleet = a_fleet(1)
    total = 0.0
    for second in range(0, 60, 2):
        at_rest = EndpointMetrics(running_requests=0.0, generation_tokens=total)
        fleet.record_metrics(A, at_rest, float(second))
        # 100 tokens a second, for the last fifth of the second between the pages.
        total += 20.0
        running = EndpointMetrics(running_requests=1.0, generation_tokens=total)
        fleet.record_metrics(A, running, second + 1.0)
        total += 20.0
        running = EndpointMetrics(running_requests=1.0, generation_tokens=total)
        fleet.record_metrics(A, running, second + 1.2)
    dispatch(fleet, "d", A, at_s=60.0)
    fleet.first_token("d", 60.0)

    generated = fleet.snapshot(61.0).decode_context_tokens[0] - 1000
    assert generated == pytest.approx(100.0, rel=0.05)


def test_the_decode_rate_is_learned_from_the_engines_counter():
    fleet = a_fleet(1)
    for second in range(30):
        metrics = EndpointMetrics(running_requests=2.0, generation_tokens=200.0 * second)
        fleet.record_metrics(A, metrics, float(second))
    dispatch(fleet, "d", A, at_s=29.0)
    fleet.first_token("d", 29.0)

    generated = fleet.snapshot(30.0).decode_context_tokens[0] - 1000
    assert generated == pytest.approx(100.0, rel=0.02)


def test_an_engine_that_restarted_has_lost_its_cache():
    fleet, request = a_fleet(1), a_request()
    fleet.record_metrics(A, EndpointMetrics(generation_tokens=500.0), 0.0)
    dispatch(fleet, "d", A, request)
    fleet.record_metrics(A, EndpointMetrics(generation_tokens=3.0), 1.0)

    assert fleet.match(request, fleet.endpoints)[0].tolist() == [0.0]


def test_an_engine_whose_counters_went_has_lost_its_cache():
    fleet, request = a_fleet(1), a_request()
    fleet.record_metrics(A, EndpointMetrics(generation_tokens=500.0), 0.0)
    dispatch(fleet, "d", A, request)
    fleet.record_metrics(A, EndpointMetrics(), 1.0)

    assert fleet.match(request, fleet.endpoints)[0].tolist() == [0.0]


def fail_and_recover(fleet):
    for at_s, healthy in ((1.0, False), (2.0, False), (3.0, True)):
        fleet.record_probe(A, healthy, at_s)


def test_an_engine_that_was_slow_to_answer_probes_keeps_its_cache():
    fleet, request = a_fleet(1), a_request()
    fleet.record_metrics(A, EndpointMetrics(generation_tokens=500.0), 0.0)
    dispatch(fleet, "d", A, request)
    before = fleet.match(request, fleet.endpoints)[0].tolist()
    fail_and_recover(fleet)
    fleet.record_metrics(A, EndpointMetrics(generation_tokens=600.0), 4.0)

    assert fleet.match(request, fleet.endpoints)[0].tolist() == before != [0.0]


def test_an_engine_that_was_away_and_has_no_counters_is_taken_to_have_restarted():
    fleet, request = a_fleet(1), a_request()
    dispatch(fleet, "d", A, request)
    fail_and_recover(fleet)

    assert fleet.match(request, fleet.endpoints)[0].tolist() == [0.0]


def test_the_index_takes_the_capacity_the_engine_reports():
    fleet, request = a_fleet(1), a_request(a_prompt(4000))
    dispatch(fleet, "d", A, request)
    fleet.release("d", 0.0)
    fleet.record_metrics(A, EndpointMetrics(kv_capacity_tokens=1600.0), 0.0)

    assert fleet.match(request, fleet.endpoints)[0].tolist() == [1600.0]
    assert fleet.snapshot(0.0).kv_capacity_tokens[0] == 1600.0


def test_an_endpoint_that_stays_keeps_its_load_when_others_come_and_go():
    fleet = a_fleet(2)
    dispatch(fleet, "d", B)
    joined, left = fleet.set_endpoints([an_endpoint(3), an_endpoint(2)])

    assert ([e.address for e in joined], left) == ([C], [A])
    assert fleet.snapshot(0.0).prefill_requests.tolist() == [0, 1]


def test_only_routable_endpoints_are_candidates_until_none_is():
    fleet = a_fleet(2)
    fleet.health.failed(A, 0.0)
    assert [e.address for e in fleet.snapshot(0.5).endpoints] == [B]

    fleet.health.failed(B, 0.0)
    assert [e.address for e in fleet.snapshot(0.5).endpoints] == [A, B]


def test_probation_admits_one_request_at_a_time():
    fleet = a_fleet(2)
    fleet.health.failed(A, 0.0)
    assert len(fleet.snapshot(2.0)) == 2

    dispatch(fleet, "d", A, at_s=2.0)
    assert [e.address for e in fleet.snapshot(2.1).endpoints] == [B]


def test_who_owes_a_first_token_too_long_is_frozen_while_others_deliver():
    fleet = a_fleet(2, frozen_after_s=10.0)
    dispatch(fleet, "a", A, at_s=0.0)
    dispatch(fleet, "b", B, at_s=0.0)
    fleet.first_token("b", 5.0)
    fleet.snapshot(12.0)
    assert fleet.health.state(A, 12.0) is HealthState.FROZEN
    assert [e.address for e in fleet.snapshot(12.0).endpoints] == [B]

    fleet.first_token("a", 13.0)
    assert len(fleet.snapshot(13.0)) == 2


def test_when_nobody_delivers_nobody_is_frozen():
    fleet = a_fleet(2, frozen_after_s=10.0)
    dispatch(fleet, "a", A)
    dispatch(fleet, "b", B)

    assert len(fleet.snapshot(60.0)) == 2


def test_a_long_prompt_is_given_more_patience():
    fleet = a_fleet(2, frozen_after_s=10.0)
    dispatch(fleet, "a", A, uncached_tokens=20_000.0)

    assert len(fleet.snapshot(25.0)) == 2
    assert len(fleet.snapshot(31.0)) == 1


def test_an_empty_fleet_has_an_empty_snapshot():
    assert len(a_fleet(0).snapshot(0.0)) == 0


def test_a_snapshot_stays_as_it_was():
    fleet = a_fleet(2)
    fleet.record_metrics(A, EndpointMetrics(running_requests=3.0), 1.0)
    snapshot = fleet.snapshot(2.0)
    dispatch(fleet, "d", A, at_s=2.0)
    fleet.first_token("d", 2.5)
    fleet.record_metrics(A, EndpointMetrics(running_requests=4.0), 3.0)

    assert snapshot.in_flight.tolist() == [0.0, 0.0]
    assert snapshot.decode_context_tokens.tolist() == [0.0, 0.0]
    assert snapshot.running_requests[0] == 3.0
    assert snapshot.scrape_age_s.tolist() == [1.0, float("inf")]


def test_a_new_membership_keeps_the_numbers_of_those_that_stay():
    fleet = a_fleet(2)
    dispatch(fleet, "d", B, at_s=1.0)
    fleet.set_endpoints([*reversed(fleet.endpoints), an_endpoint(3)])
    fleet.first_token("d", 2.0)

    assert fleet.snapshot(2.0).decode_requests.tolist() == [1.0, 0.0, 0.0]


def test_a_prompt_that_reads_no_cache_is_computed_whole_and_kept_all_the_same():
    fleet = a_fleet(2)
    plain = a_request(a_prompt(50), prompt_tokens=800.0)
    scored = plain._replace(reads_cache=False)
    endpoints = fleet.snapshot(0.0).endpoints
    dispatch(fleet, "plain", A, plain)
    fleet.release("plain", 1.0)
    assert fleet.match(plain, endpoints).tokens[0] > 700
    assert not any(column.any() for column in fleet.match(scored, endpoints))

    dispatch(fleet, "scored", B, scored)
    fleet.release("scored", 2.0)
    assert fleet.match(plain, endpoints).tokens[1] > 700


def test_of_a_prompt_that_reads_no_cache_none_is_expected_to_be_found():
    # Else the engine's word that it found nothing would be held against what was sent there.
    caches, endpoint = PrefixCaches(live_settings()), an_endpoint(1)
    caches.adopt([endpoint], lambda _: 16_000.0)
    plain = a_request(a_prompt(50), prompt_tokens=800.0)
    caches.let_go(endpoint.address, caches.hold(endpoint.address, plain, 0.0))
    scored = caches.hold(endpoint.address, plain._replace(reads_cache=False), 0.0)
    assert scored.expected_tokens == 0
    assert caches.hold(endpoint.address, plain, 0.0).expected_tokens > 700


def test_each_answer_of_a_request_generates_and_they_end_together():
    fleet = a_fleet(1)
    several = a_request(a_prompt(5))._replace(n_answers=8)
    dispatch(fleet, "one", A, a_request(a_prompt(5, 1)))
    dispatch(fleet, "several", A, several)
    assert fleet.snapshot(0.0).prefill_requests.tolist() == [2.0]
    for decision_id in ("one", "several"):
        fleet.first_token(decision_id, 1.3)
    later = fleet.snapshot(3.3)
    assert later.decode_requests.tolist() == [9.0]
    per_answer = (later.decode_context_tokens - fleet.snapshot(1.3).decode_context_tokens) / 9
    fleet.release("several", 3.3)
    alone = fleet.snapshot(3.3).decode_context_tokens - fleet.snapshot(1.3).decode_context_tokens
    assert alone == pytest.approx(per_answer)
    fleet.release("one", 4.0)
    assert all_zero(fleet.snapshot(4.0))
