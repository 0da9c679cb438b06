"""A pool has one demand, whoever decides: counted once for each request that leaves, where it went."""

import numpy as np
import pytest

from builders import a_prompt, a_request, an_endpoint
from builders import a_router as any_router
from lodestar_extproc.completion import FirstToken
from lodestar_extproc.decision import Ranking, Reason
from lodestar_extproc.endpoint import Adapters, EndpointMetrics
from lodestar_extproc.policies.protocol import Stateless
from lodestar_extproc.request import RequestKind, Subset
from lodestar_extproc.routing.assembly import policy_for_route
from lodestar_extproc.routing.routers import Routers
from lodestar_extproc.routing.unserved import NoEndpoint, Overloaded

PROMPTS = [a_request(a_prompt(400, seed=i)) for i in range(20)]


def a_router(n=3, **settings):
    """One whose endpoints may be silent: most of these requests are never answered."""
    return any_router(n, frozen_after_s=3600.0, **settings)


class Takes(Stateless):
    """Always the endpoint at *index*, after *ttft_s*, and *service_s* of service."""

    name = "takes"

    def __init__(self, index=0, ttft_s=0.1, service_s=0.05):
        self._index, self._ttft_s, self._service_s = index, ttft_s, service_s

    def rank(self, candidates, rng):
        n = len(candidates)
        rest = (i for i in range(n) if i != self._index)
        ttft_s, service_s = np.full(n, self._ttft_s), np.full(n, self._service_s)
        return Ranking((self._index, *rest), Reason.MODEL, ttft_s, service_s=service_s)


def route(router, at_s, request=PROMPTS[0], **how):
    return router.route(request, request_id="", at_s=at_s, **how)


def demand(router, at_s):
    """What a request would meet that came now; the next one to leave changes it."""
    return router.candidates(PROMPTS[0], at_s).demand


def taught(router):
    """Endpoint 0 is the slowest by far, and the learner knows."""
    slow = router.fleet.endpoints[0].address
    for i in range(120):
        decision = route(router, i / 10 - 1000.0, PROMPTS[i % 20], policy=Takes(i % 3))
        ttft_s = 3.0 if decision.address == slow else 0.1
        router.first_token(FirstToken(decision.decision_id, decision.at_s + ttft_s))
    return router


def test_two_routes_of_a_pool_see_one_and_the_same_demand():
    router = a_router(policy="learned")
    routers = Routers([router], policy_for_route)
    asked = [None, routers.override("pool", None, "goodput"), routers.override("pool", "random")]
    met = [route(router, i / 10, policy=asked[i % 3]).candidates.demand for i in range(900)]

    for each in met[-3:]:
        assert each.arrivals_per_s == pytest.approx(10.0, rel=0.05)
        assert each.service_ratio.sum() == pytest.approx(met[-1].service_ratio.sum(), rel=0.05)


def test_what_is_refused_is_no_demand():
    router = a_router(policy="learned", ttft_slo_s=1.0)
    for i in range(300):
        route(router, i / 10, policy=Takes())
    before = demand(router, 30.0)
    for _ in range(100):
        with pytest.raises(Overloaded):
            route(router, 30.0, a_request(priority=-1), policy=Takes(ttft_s=10.0))
        with pytest.raises(NoEndpoint):
            route(router, 30.0, subset=Subset.of(["elsewhere"]))
    after = demand(router, 30.0)

    assert after.arrivals_per_s == before.arrivals_per_s
    assert after.service_ratio.tolist() == before.service_ratio.tolist()


def test_service_is_booked_where_a_loaded_adapter_drew_the_request():
    router = a_router(policy="learned")
    chosen, holds = (e.address for e in router.fleet.endpoints[:2])
    for address, running in ((chosen, ()), (holds, ("lora",))):
        adapters = Adapters(frozenset(running), frozenset(), 1)
        router.fleet.record_metrics(address, EndpointMetrics(adapters=adapters), 0.0)
    for i in range(50):
        decision = route(router, i / 10, a_request(model="lora"), policy=Takes(0))

    assert decision.address == holds
    service = demand(router, 5.0).service_ratio
    assert service[1] > 0
    assert service[[0, 2]].tolist() == [0.0, 0.0]


def test_a_shadow_sees_the_demand_that_is():
    router = taught(a_router(policy="random", shadow_policies=("learned",), burn_in_samples=20))
    shadows = set()
    for i in range(1500):
        decision = route(router, i / 10, policy=Takes(0))
        shadows.add(decision.shadows[0][1])
    met = decision.candidates.demand

    assert 0 not in shadows
    assert met.arrivals_per_s == pytest.approx(10.0, rel=0.1)
    assert met.service_ratio == pytest.approx([0.5, 0.0, 0.0], rel=0.1, abs=1e-9)


@pytest.mark.parametrize("policy", ["random", "least_request", "learned"])
def test_a_choice_is_the_same_with_shadows_and_without(policy):
    shadows = ("random", "learned", "round_robin")
    runs = []
    for shadow_policies in ((), shadows):
        router = a_router(policy=policy, shadow_policies=shadow_policies)
        runs.append([route(router, i / 10).addresses for i in range(50)])

    assert runs[0] == runs[1]


def test_a_request_without_a_choice_and_one_that_could_not_be_read_are_demand():
    router = a_router(2, policy="learned")
    first = router.fleet.endpoints[0].address
    for i in range(50):
        route(router, i / 10, subset=Subset.of([first]))
    alone = demand(router, 5.0)
    assert alone.arrivals_per_s == pytest.approx(10.0, rel=0.1)
    assert alone.service_ratio[0] > 0 == alone.service_ratio[1]

    unread = a_request(b"", kind=RequestKind.UNKNOWN, prompt_tokens=2000.0)
    decision = route(router, 5.0, unread)
    assert decision.ranking.reason is Reason.UNPARSED
    added = demand(router, 5.0).service_ratio - alone.service_ratio
    assert added[decision.chosen] > 0


def test_a_body_that_could_not_be_read_is_a_prompt_of_its_length():
    added = []
    for kind in (RequestKind.UNKNOWN, RequestKind.CHAT_COMPLETIONS):
        router = a_router(1, policy="learned")
        route(router, 0.0, a_request(b"", kind=kind, prompt_tokens=2000.0))
        added.append(demand(router, 0.0).service_ratio[0])

    assert added[0] == added[1] > 0


def test_fixed_rules_are_not_made_to_pay_for_what_nobody_reads():
    router = a_router(policy="prefix_cache", shadow_policies=("lmetric",))

    assert route(router, 0.0).candidates.demand is None


def test_a_route_that_asks_for_demand_has_it_counted_of_all_routes_from_then_on():
    router = a_router(policy="random")
    route(router, 0.0)
    route(router, 0.0, policy=policy_for_route(router, "learned", None))
    met = [route(router, i / 10).candidates.demand for i in range(1, 100)]

    assert met[-1].arrivals_per_s == pytest.approx(10.0, rel=0.1)


def test_what_left_is_counted_on_by_new_settings_and_a_new_membership():
    router = a_router(policy="learned")
    for i in range(300):
        route(router, i / 10, policy=Takes(1))
    router.set_endpoints([an_endpoint(9), *router.fleet.endpoints[1:]])
    met = demand(router, 30.0)

    assert met.arrivals_per_s == pytest.approx(10.0, rel=0.05)
    assert met.service_ratio.tolist() == [0.0, pytest.approx(0.5, rel=0.05), 0.0]


def test_a_routes_policy_is_made_once_and_again_after_new_settings():
    router = a_router()
    routers = Routers([router], policy_for_route)
    once = routers.override("pool", "round_robin")
    assert routers.override("pool", "round_robin") is routers.override(None, "round_robin") is once
    assert routers.override("pool") is None

    routers.forget_overrides()
    assert routers.override("pool", "round_robin") is not once
