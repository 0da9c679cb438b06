from dataclasses import replace

import numpy as np
import pytest

from builders import a_fleet, a_prompt, a_request, a_router, candidates_of, dispatch
from lodestar_extproc.decision import Ranking, Reason
from lodestar_extproc.endpoint import Adapters, EndpointMetrics
from lodestar_extproc.policies.preference import preferred

NAN = float("nan")


def order_of(order, fleet=None, load_s=1.0, **changes):
    candidates = replace(candidates_of(fleet or a_fleet(len(order))), **changes)
    return preferred(Ranking(order), candidates, load_s).order


def effort(*each):
    return np.array(each)


def test_among_equals_the_policys_order_stays():
    assert order_of((2, 0, 1), adapter_effort=effort(0.4, 0.4, 0.4)) == (2, 0, 1)
    assert order_of((2, 0, 1), tpot_s=effort(0.1, 0.2, NAN), tpot_slo_s=1.0) == (2, 0, 1)
    assert order_of((2, 0, 1)) == (2, 0, 1)


def test_where_the_adapter_runs_comes_first_while_nobody_waits():
    assert order_of((2, 0, 1), adapter_effort=effort(1.0, 0.0, 0.2)) == (1, 2, 0)


@pytest.mark.parametrize(
    ("queued_tokens", "order"), [(1000, (1, 0, 2)), (3000, (2, 1, 0)), (11_000, (0, 2, 1))]
)
def test_waiting_for_it_may_cost_more_than_loading_it_elsewhere(queued_tokens, order):
    """At 0.1 s a thousand tokens: 0.1, 0.3 and 1.1 s of waiting against 0.2 and 1 s of loading."""
    fleet = a_fleet(3)
    waiting = a_request(a_prompt(queued_tokens))
    dispatch(fleet, "a", fleet.endpoints[1].address, waiting)
    if queued_tokens > 10_000:
        dispatch(fleet, "b", fleet.endpoints[2].address, waiting)
    first = order_of((0, 2, 1), fleet, adapter_effort=effort(1.0, 0.0, 0.2))
    assert first == order


def test_a_cost_of_0_prefers_nobody():
    assert order_of((2, 0, 1), load_s=0.0, adapter_effort=effort(1.0, 0.0, 0.2)) == (2, 0, 1)


def test_who_misses_the_bound_on_tpot_comes_last_whatever_is_loaded_there():
    slow = {"tpot_s": effort(0.1, 0.06, NAN), "tpot_slo_s": 0.05}
    assert order_of((0, 1, 2), **slow) == (2, 0, 1)
    assert order_of((0, 1, 2), adapter_effort=effort(1.0, 0.0, 0.2), **slow) == (2, 1, 0)


def test_an_endpoint_tried_on_purpose_that_is_put_behind_is_tried_no_more():
    tried = Ranking((1, 0, 2), Reason.EXPLORATION, propensity=0.005)
    candidates = replace(candidates_of(a_fleet(3)), adapter_effort=effort(0.0, 1.0, 0.0))
    moved = preferred(tried, candidates, 1.0)
    assert (moved.order, moved.reason, moved.propensity) == ((0, 2, 1), Reason.MODEL, 1.0)
    candidates = replace(candidates, adapter_effort=effort(1.0, 0.0, 1.0))
    assert preferred(tried, candidates, 1.0) == tried


def scrape(router, index, generated, at_s, **metrics):
    values = {"running_requests": 4.0, "generation_tokens": generated} | metrics
    address = router.fleet.endpoints[index].address
    router.fleet.record_metrics(address, EndpointMetrics(**values), at_s)


def test_an_engine_too_slow_between_tokens_is_chosen_last_by_any_policy():
    router = a_router(2, policy="round_robin", tpot_slo_s=0.05)
    for i in range(10):
        scrape(router, 0, 10.0 * i, float(i))  # 4 requests, 10 tokens a second: 0.4 s a token
        scrape(router, 1, 200.0 * i, float(i))
    fast = router.fleet.endpoints[1].address
    chosen = [router.route(a_request(), request_id="", at_s=9.0) for _ in range(4)]
    assert {decision.address for decision in chosen} == {fast}

    router = a_router(2, policy="round_robin")
    chosen = [router.route(a_request(), request_id="", at_s=9.0) for _ in range(4)]
    assert len({decision.address for decision in chosen}) == 2
    asks = a_request(tpot_slo_s=0.05)
    assert router.route(asks, request_id="", at_s=9.0).candidates.tpot_slo_s == 0.05


def test_any_policy_sends_an_adapters_requests_where_it_runs():
    router = a_router(3, policy="round_robin")
    tuned = Adapters(frozenset(("tuned",)), slots=1.0)
    scrape(router, 2, 0.0, 0.0, adapters=tuned)
    home = router.fleet.endpoints[2].address
    asks = a_request(model="tuned")
    chosen = [router.route(asks, request_id="", at_s=0.1).address for _ in range(2)]
    assert chosen[0] == home
    # Two prompts of 1000 tokens wait there now, which costs less than loading elsewhere.
    assert chosen[1] == home
    base = {router.route(a_request(), request_id="", at_s=0.2).address for _ in range(3)}
    assert len(base) == 3
