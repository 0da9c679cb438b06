import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import Recorder, a_prompt, a_request, a_router, an_endpoint
from lodestar_extproc.completion import AnswerReport, Completion, FirstToken, Outcome
from lodestar_extproc.decision import Reason
from lodestar_extproc.fleet.health_state import HealthState
from lodestar_extproc.request import RequestKind
from lodestar_extproc.routing.assembly import policy_for_route
from lodestar_extproc.routing.routers import Routers, UnknownPool
from lodestar_extproc.routing.unserved import NoEndpoint


def route(router, at_s=0.0, request=None, stream_id="", request_id="r1"):
    request = request or a_request()
    return router.route(request, request_id=request_id, stream_id=stream_id, at_s=at_s)


def end(decision, at_s=9.0, outcome=Outcome.SERVED, **changes) -> Completion:
    values = {"decision_id": decision.decision_id, "served": decision.addresses[0], "attempts": 1}
    return Completion(at_s, outcome, **values | changes)


def n_samples(router) -> int:
    return router.learner.status().n_samples


def test_a_decision_ranks_every_endpoint_and_is_counted():
    router = a_router(3)
    decision = route(router)

    assert sorted(decision.addresses) == [e.address for e in router.fleet.endpoints]
    assert router.fleet.n_in_flight == router.n_open == 1


def test_the_first_token_is_learned_once_with_the_row_decided_on():
    router = a_router()
    decision = route(router, at_s=1.0)
    for _ in range(2):
        router.first_token(FirstToken(decision.decision_id, 1.5, decision.addresses[0]))
    router.complete(end(decision, ttft_s=0.4))

    assert n_samples(router) == 1
    assert router.fleet.n_in_flight == router.n_open == 0


def test_without_an_observer_the_access_log_teaches():
    router = a_router(sees_first_tokens=False)
    router.complete(end(route(router), ttft_s=0.4))

    assert n_samples(router) == 1


def test_a_retry_is_learned_from_the_last_attempt_and_blames_the_first():
    router = a_router()
    decision = route(router)
    failed, served = decision.addresses[:2]
    router.first_token(FirstToken(decision.decision_id, 3.0, served))
    assert n_samples(router) == 0
    assert router.fleet.health.state(failed, 3.5) is HealthState.EJECTED

    router.complete(end(decision, served=served, attempts=2, ttft_s=0.5))
    assert n_samples(router) == 1
    assert router.learner.status().endpoints[0].address == served
    assert router.fleet.health.state(served, 9.0) is HealthState.HEALTHY


def test_without_an_observer_a_retry_blames_the_first_at_its_end():
    router = a_router(sees_first_tokens=False)
    decision = route(router)
    failed, served = decision.addresses[:2]
    router.complete(end(decision, served=served, attempts=2))

    assert router.fleet.health.state(failed, 9.5) is HealthState.EJECTED


def test_what_envoy_chose_by_itself_blames_nobody():
    router = a_router(4)
    decision = route(router)
    router.first_token(FirstToken(decision.decision_id, 3.0, decision.addresses[3]))

    assert router.fleet.health.all_healthy


def test_a_retry_is_blamed_at_its_first_token_and_not_again_at_its_end():
    router = a_router()
    decision = route(router)
    failed, _, served = decision.addresses
    router.first_token(FirstToken(decision.decision_id, 3.0, served))
    states = [router.fleet.health.state(a, 3.5) for a in decision.addresses]
    assert states == [HealthState.EJECTED, HealthState.EJECTED, HealthState.HEALTHY]

    router.complete(end(decision, served=served, attempts=3))
    assert router.fleet.health.state(failed, 9.5) is HealthState.PROBATION


def test_a_keep_alive_before_the_first_token_spoils_the_logs_label():
    router = a_router()
    decision = route(router)
    served = decision.addresses[1]
    seen = FirstToken(decision.decision_id, 3.0, served, body_began_before=True)
    router.first_token(seen)
    router.complete(end(decision, served=served, attempts=2, ttft_s=0.01))

    assert n_samples(router) == 0


def test_what_the_engine_said_joins_what_envoy_saw_of_the_end():
    recorder = Recorder()
    router = a_router(listeners=[recorder], bytes_per_token=1.0)
    decision = route(router)
    failed, served = decision.addresses[:2]
    router.report(AnswerReport(decision.decision_id, False, 1000, 600, 3))
    router.complete(end(decision, served=served, attempts=2))

    (event,) = recorder.completions
    assert (event.prompt_tokens, event.cached_tokens, event.output_tokens) == (1000, 600, 3)
    assert (event.outcome, event.attempts) == (Outcome.SERVED, 2)
    assert router.fleet.health.state(failed, 9.0) is HealthState.EJECTED
    assert router.bytes_per_token("m") > 1.0


@pytest.mark.parametrize("outcome", [Outcome.SERVED, Outcome.CLIENT_GONE])
def test_an_error_the_engine_reported_in_its_answer_is_a_failure_whatever_envoy_saw(outcome):
    recorder = Recorder()
    router = a_router(listeners=[recorder])
    decision = route(router)
    router.report(AnswerReport(decision.decision_id, failed=True))
    flags = ("DC",) if outcome is Outcome.CLIENT_GONE else ()
    router.complete(end(decision, outcome=outcome, response_code=200, flags=flags))

    assert [c.outcome for c in recorder.completions] == [Outcome.FAILED]
    # It answered: one bad prompt ejects nobody.
    assert router.fleet.health.all_healthy
    assert n_samples(router) == 0


def test_a_refusal_comes_at_once_and_teaches_nothing():
    router = a_router(sees_first_tokens=False)
    router.complete(end(route(router), ttft_s=0.004, response_code=400))

    assert n_samples(router) == 0


def test_what_an_observer_should_have_seen_and_did_not_is_no_label():
    router = a_router()
    router.complete(end(route(router), ttft_s=0.002))

    assert n_samples(router) == 0


def test_a_client_that_leaves_before_the_first_token_teaches_a_lower_bound():
    router = a_router()
    router.complete(end(route(router), outcome=Outcome.CLIENT_GONE, duration_s=30.0))

    assert n_samples(router) == 1


def test_a_client_that_leaves_after_the_first_token_is_nobodys_fault():
    router = a_router()
    decision = route(router)
    router.first_token(FirstToken(decision.decision_id, 1.0))
    router.complete(end(decision, outcome=Outcome.CLIENT_GONE))

    assert n_samples(router) == 1
    assert router.fleet.health.all_healthy


def test_a_failure_blames_who_broke_off_and_forgets_the_prompt():
    router, request = a_router(), a_request()
    decision = route(router, request=request)
    router.complete(end(decision, outcome=Outcome.FAILED, flags=("UC",)))

    assert router.fleet.health.state(decision.addresses[0], 9.0) is HealthState.EJECTED
    assert router.fleet.match(request, router.fleet.endpoints)[0].sum() == 0
    assert n_samples(router) == 0


def test_one_error_answer_ejects_nobody():
    router = a_router()
    router.complete(end(route(router), outcome=Outcome.FAILED, response_code=500))

    assert router.fleet.health.all_healthy


def test_a_failure_without_a_host_blames_nobody():
    router = a_router()
    router.complete(end(route(router), outcome=Outcome.FAILED, served=None, flags=("UO",)))

    assert router.fleet.health.all_healthy


def test_a_decision_that_came_too_late_is_undone_and_teaches_nothing():
    router, request = a_router(), a_request()
    decision = route(router, request=request, stream_id="late")
    done = Completion(5.0, Outcome.SERVED, stream_id="late", served=decision.addresses[0])

    assert router.complete(done)
    assert router.fleet.n_in_flight == router.n_open == 0
    assert router.fleet.match(request, router.fleet.endpoints)[0].sum() == 0
    assert n_samples(router) == 0


def test_usage_that_tells_of_no_hits_takes_belief_from_what_is_matched():
    router, prompt = a_router(1), a_prompt(2000)

    def serve() -> float:
        decision = route(router, request=a_request(prompt))
        router.first_token(FirstToken(decision.decision_id, 1.0))
        router.report(AnswerReport(decision.decision_id, prompt_tokens=2000, cached_tokens=0))
        router.complete(end(decision))
        return float(decision.candidates.matched_tokens[0])

    matched = [serve() for _ in range(40)]
    assert matched[:2] == [0.0, 1999.0]
    assert matched[-1] < 0.2 * 2000


def test_requests_of_one_request_id_end_apart():
    router = a_router()
    first, second = (route(router, stream_id=s, request_id="one action") for s in "ab")

    assert router.complete(Completion(1.0, Outcome.SERVED, stream_id="b"))
    assert router.n_open == 1
    assert not router.complete(Completion(2.0, Outcome.SERVED, stream_id="b"))
    assert not router.complete(end(second))
    assert router.complete(end(first))
    assert router.n_open == router.fleet.n_in_flight == 0


def test_an_end_without_any_id_of_ours_ends_nothing():
    router = a_router()
    route(router)

    assert not router.complete(Completion(1.0, Outcome.SERVED))
    assert router.n_open == router.fleet.n_in_flight == 1


def test_a_request_nothing_is_heard_of_expires():
    recorder = Recorder()
    router = a_router(listeners=[recorder], request_timeout_s=60.0)
    route(router, at_s=0.0, request_id="old")
    route(router, at_s=50.0, request_id="new")
    router.expire(61.0)

    assert [c.outcome for c in recorder.completions] == [Outcome.EXPIRED]
    assert router.fleet.n_in_flight == 1


def test_an_answer_in_one_piece_is_never_a_label():
    router = a_router()
    decision = route(router, request=a_request(streaming=False))
    router.first_token(FirstToken(decision.decision_id, 4.0, decision.addresses[0]))
    router.complete(end(decision, ttft_s=4.0))

    assert n_samples(router) == 0


def test_an_answer_in_one_piece_leaves_prefill_when_it_is_expected_to():
    router = a_router(1)
    route(router, request=a_request(streaming=False))

    assert router.fleet.snapshot(0.001).prefill_requests.tolist() == [1]
    assert router.fleet.snapshot(60.0).decode_requests.tolist() == [1]


def test_an_unreadable_body_goes_by_the_fallback_and_says_so():
    router = a_router()
    request = a_request(b"", kind=RequestKind.UNKNOWN, prompt_tokens=100.0)

    assert route(router, request=request).ranking.reason is Reason.UNPARSED


def test_a_lone_endpoint_is_chosen_without_thought():
    assert route(a_router(1)).ranking.reason is Reason.ONLY_ENDPOINT


def test_no_endpoint_is_an_error_of_its_own():
    with pytest.raises(NoEndpoint, match="pool"):
        route(a_router(0))


def test_shadow_mode_learns_from_whoever_served():
    router = a_router(shadow=True)
    decision = route(router)
    served = decision.addresses[2]
    router.first_token(FirstToken(decision.decision_id, 1.0, served))
    router.complete(end(decision, served=served))

    assert router.learner.status().endpoints[0].address == served
    assert router.fleet.health.all_healthy


def test_shadow_policies_are_scored_and_never_decide():
    router = a_router(policy="least_request", shadow_policies=("round_robin", "learned"))
    decision = route(router)

    assert [name for name, _ in decision.shadows] == ["round_robin", "learned"]
    assert decision.policy == "least_request"


def test_the_model_decides_after_burn_in_and_its_choice_goes_out():
    router = a_router(2, burn_in_samples=20, exploration_ratio=0.0, trust_max_error_ratio=10.0)
    slow = router.fleet.endpoints[0].address
    reasons = []
    for i in range(60):
        decision = route(router, at_s=float(i), request=a_request(a_prompt(1000, seed=i)))
        ttft_s = 3.0 if decision.addresses[0] == slow else 0.2
        router.first_token(FirstToken(decision.decision_id, i + ttft_s, decision.addresses[0]))
        router.complete(end(decision, at_s=i + 5.0))
        reasons.append(decision.ranking.reason)
        if i > 40:
            assert decision.addresses[0] != slow

    assert reasons[0] is Reason.BURN_IN
    assert reasons[-1] is Reason.MODEL


def test_an_endpoint_that_leaves_takes_its_requests_and_what_was_learned_of_it():
    router = a_router(2)
    decision = route(router)
    router.first_token(FirstToken(decision.decision_id, 1.0))
    router.set_endpoints(e for e in router.fleet.endpoints if e.address != decision.addresses[0])
    router.complete(end(decision))

    assert router.fleet.n_in_flight == 0
    assert router.learner.status().endpoints == ()


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["route", "first", "end", "fail", "gone", "late", "join", "leave"]),
            st.integers(0, 5),
        ),
        max_size=40,
    )
)
def test_whatever_order_events_come_in_nothing_stays_open(history):
    router, made = a_router(2, request_timeout_s=100.0), []
    for step, (event, number) in enumerate(history):
        at_s = float(step)
        if event == "route" and len(router.fleet.endpoints):
            made.append(route(router, at_s, a_request(a_prompt(40, number)), f"s{len(made)}"))
        elif event == "join":
            router.set_endpoints([*router.fleet.endpoints, an_endpoint(number + 10)])
        elif event == "leave":
            router.set_endpoints(router.fleet.endpoints[1:])
        elif made and event != "route":
            decision = made[number % len(made)]
            served = decision.addresses[number % len(decision.addresses)]
            if event == "first":
                router.first_token(FirstToken(decision.decision_id, at_s, served))
            elif event == "late":
                router.complete(
                    Completion(at_s, Outcome.SERVED, stream_id=f"s{made.index(decision)}")
                )
            else:
                outcome = {
                    "end": Outcome.SERVED,
                    "fail": Outcome.FAILED,
                    "gone": Outcome.CLIENT_GONE,
                }
                router.complete(end(decision, at_s, outcome[event], served=served, attempts=number))
    router.expire(1e6)

    assert router.n_open == router.fleet.n_in_flight == 0
    everything = router.fleet.everything(1e6)
    assert everything.in_flight.sum() == 0


def test_the_pool_is_found_by_name_and_by_decision():
    router = a_router()
    routers = Routers([router], policy_for_route)
    decision = route(routers.get(None))
    routers.first_token(FirstToken(decision.decision_id, 1.0))
    routers.report(AnswerReport(decision.decision_id, prompt_tokens=7))
    routers.report(AnswerReport("other.1"))

    assert routers.complete(end(decision))
    assert not routers.complete(end(decision))
    assert not routers.complete(Completion(1.0, Outcome.SERVED, stream_id="not ours"))
    with pytest.raises(UnknownPool, match="configured: pool"):
        routers.get("other")


def test_a_route_decides_by_its_own_policy_on_the_same_fleet():
    router = a_router()
    routers = Routers([router], policy_for_route)
    policy = routers.override("pool", "round_robin")
    decision = router.route(a_request(), request_id="", at_s=0.0, policy=policy)

    assert decision.policy == "round_robin"
    assert router.fleet.n_in_flight == 1
    with pytest.raises(ValueError, match="no policy 'magic'"):
        routers.override("pool", "magic")


def generation_s(router):
    return router.learner.generation_s(router.fleet.endpoints)[0]


def test_how_long_answers_take_after_the_first_token_is_learned_from_whole_ones():
    router = a_router()
    decision = route(router, at_s=1.0)
    router.first_token(FirstToken(decision.decision_id, 1.5, decision.address))
    router.complete(end(decision, at_s=5.5))
    assert generation_s(router) == pytest.approx(4.0)

    broken = route(router, at_s=6.0)
    router.first_token(FirstToken(broken.decision_id, 6.5, broken.address))
    router.complete(end(broken, at_s=6.6, outcome=Outcome.FAILED))
    in_one_piece = route(router, at_s=7.0, request=a_request(streaming=False))
    router.complete(end(in_one_piece, at_s=17.0, ttft_s=9.0, duration_s=9.0))
    assert generation_s(router) == pytest.approx(4.0)


def test_without_an_observer_the_access_log_says_how_long_an_answer_took():
    router = a_router(sees_first_tokens=False)
    router.complete(end(route(router), ttft_s=0.5, duration_s=2.5))

    assert generation_s(router) == pytest.approx(2.0)


@pytest.mark.parametrize("cost", ["externality", "ttft", "goodput", "end_to_end"])
def test_every_cost_decides_once_the_model_may(cost):
    router = a_router(cost=cost, burn_in_samples=10, ttft_slo_s=1.0)
    for i in range(60):
        n_tokens = 200 + 700 * i % 3000
        decision = route(router, at_s=2.0 * i, request=a_request(a_prompt(n_tokens, seed=i)))
        first_token_at_s = 2.0 * i + 0.05 + n_tokens / 1e4
        router.first_token(FirstToken(decision.decision_id, first_token_at_s, decision.address))
        router.complete(end(decision, at_s=2.0 * i + 1.0))

    assert decision.ranking.reason is Reason.MODEL
