"""An engine that answers fast and wrongly gets next to nothing, whoever decides; then it is tried anew.

`tests/support/bad_engines.py` drives a router as Envoy does; a tenth of the fair share is the bound.
"""

import pytest

from bad_engines import FAULTS, BadEngine, status
from builders import a_prompt, a_request, a_router
from lodestar_extproc.completion import Completion, Outcome
from lodestar_extproc.config.settings import FIXED_POLICIES
from lodestar_extproc.fleet.health_state import HealthState
from lodestar_extproc.request import RequestKind

POLICIES = ("learned", *FIXED_POLICIES)
TENTH_OF_FAIR = 0.1 / 3
"""Of three endpoints."""


@pytest.mark.parametrize("policy", POLICIES)
def test_whoever_decides_a_black_hole_keeps_a_tenth_of_its_share_at_most(policy):
    pool = BadEngine(FAULTS["a page"], policy=policy)
    pool.run(120)

    assert pool.share(20) <= TENTH_OF_FAIR


@pytest.mark.parametrize("policy", ["learned", "prefix_affinity_token_load"])
@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_it_answers_a_black_hole_keeps_a_tenth_of_its_share_at_most(fault, policy):
    pool = BadEngine(FAULTS[fault], policy=policy)
    pool.run(120)

    assert pool.share(20) <= TENTH_OF_FAIR


@pytest.mark.parametrize("fault", ["429", "a token, then an abort", "a token, then silence"])
def test_a_mended_engine_is_tried_one_request_at_a_time_and_then_is_back(fault):
    pool = BadEngine(FAULTS[fault], policy="round_robin")
    pool.run(200)
    pool.fault = None
    pool.run(700)

    assert pool.router.fleet.health.state(pool.bad, pool.now_s) is HealthState.HEALTHY
    assert pool.share(800) > 0.25


@pytest.mark.parametrize("code", [401, 404, 429, 204, 302])
def test_where_all_refuse_alike_nobody_is_blamed(code):
    router = a_router(3, policy="round_robin")
    for i in range(100):
        decision = router.route(a_request(a_prompt(100, i)), request_id="", at_s=i / 10)
        end(router, decision, i / 10 + 0.05, code)

    assert router.fleet.health.all_healthy


@pytest.mark.parametrize("code", [400, 413, 422])
def test_a_refusal_of_the_request_blames_no_engine(code):
    pool = BadEngine(status(code), policy="round_robin")
    pool.run(200)

    assert pool.router.fleet.health.all_healthy
    assert pool.share(20) == pytest.approx(1 / 3, abs=0.05)


def test_a_client_with_a_bad_key_blames_no_engine():
    router = a_router(3, policy="round_robin")
    for i in range(300):
        decision = router.route(a_request(a_prompt(100, i)), request_id="", at_s=i / 10)
        code = 401 if i % 10 == 0 else 200
        end(router, decision, i / 10 + 0.05, code)
    assert router.fleet.health.all_healthy


@pytest.mark.parametrize("code", [500, 404, 429])
def test_one_bad_prompt_takes_nobody_out_however_often_it_is_tried(code):
    router, prompt = a_router(2, policy="round_robin"), a_request(a_prompt(500))
    for i in range(6):
        decision = router.route(prompt, request_id="", at_s=float(i))
        end(router, decision, i + 0.1, code)
    states = {router.fleet.health.state(e.address, 6.0) for e in router.fleet.endpoints}
    assert HealthState.EJECTED not in states
    assert code == 429 or states == {HealthState.HEALTHY}


def test_a_prompt_is_not_sent_again_to_who_failed_it():
    router, prompt = a_router(3, policy="session_affinity"), a_request(a_prompt(500), session=7)
    first = router.route(prompt, request_id="", at_s=0.0)
    end(router, first, 0.1, 500)

    assert first.address not in router.route(prompt, request_id="", at_s=0.2).addresses
    other = router.route(a_request(a_prompt(500, 1)), request_id="", at_s=0.2)
    assert first.address in other.addresses


def test_a_refusal_is_heeded_for_as_long_as_it_asks():
    router = a_router(3, policy="round_robin")
    for i in range(30):
        decision = router.route(a_request(a_prompt(100, i)), request_id="", at_s=i / 10)
        end(router, decision, i / 10 + 0.05, 200)
    decision = router.route(a_request(a_prompt(100, 99)), request_id="", at_s=4.0)
    end(router, decision, 4.0, 429, retry_after_s=20.0)
    health = router.fleet.health

    assert health.state(decision.address, 23.0) is HealthState.COOLING
    assert health.state(decision.address, 25.0) is HealthState.PROBATION


def test_a_refused_prompt_is_in_no_cache():
    router, prompt = a_router(3), a_request(a_prompt(1200))
    decision = router.route(prompt, request_id="", at_s=0.0)
    end(router, decision, 0.1, 429)

    assert router.fleet.match(prompt, router.fleet.endpoints)[0].sum() == 0


def test_what_an_unknown_api_answers_blames_nobody():
    router = a_router(3, policy="round_robin")
    for i in range(60):
        request = a_request(a_prompt(100, i), kind=RequestKind.UNKNOWN)
        decision = router.route(request, request_id="", at_s=i / 10)
        end(router, decision, i / 10 + 0.05, 204)
    assert router.fleet.health.all_healthy


def end(router, decision, at_s: float, code: int, **changes) -> None:
    outcome = Outcome.FAILED if code >= 500 else Outcome.SERVED
    router.complete(
        Completion(
            at_s,
            outcome,
            decision_id=decision.decision_id,
            served=decision.address,
            response_code=code,
            **changes,
        )
    )
