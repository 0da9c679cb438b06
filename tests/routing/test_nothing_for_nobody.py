"""What nobody asks for is neither computed nor learned nor kept."""

from dataclasses import replace

import numpy as np
import pytest

from builders import a_request, a_router
from lodestar_extproc.completion import FirstToken
from lodestar_extproc.features import extract
from lodestar_extproc.routing.assembly import apply_settings, policy_for_route


def answered(router, at_s=0.0, **how):
    """A decision whose first token came."""
    decision = router.route(a_request(), request_id="", at_s=at_s, **how)
    router.first_token(FirstToken(decision.decision_id, at_s + 0.5, decision.address))
    return decision


def n_samples(router) -> int:
    return router.learner.status().n_samples


def test_beside_a_fixed_rule_nothing_is_learned_and_no_features_are_computed():
    router = a_router(policy="least_request")
    decision = answered(router)

    assert n_samples(router) == 0
    assert decision.row is None
    assert "features" not in vars(decision.candidates)


def test_a_learned_shadow_has_a_fixed_rules_requests_learned():
    router = a_router(policy="least_request", shadow_policies=("learned",))
    answered(router)

    assert n_samples(router) == 1


def test_a_route_that_asks_the_learner_has_all_routes_teach_it_from_then_on():
    router = a_router(policy="random")
    answered(router)
    answered(router, policy=policy_for_route(router, "learned", None))
    answered(router)

    assert n_samples(router) == 2


@pytest.mark.parametrize(("policy", "learned"), [("random", 1), ("learned", 2)])
def test_who_decides_from_now_on_says_whether_it_is_learned(policy, learned):
    router = a_router(policy="learned")
    answered(router)
    apply_settings(router, replace(router.settings, policy=policy))
    answered(router)

    assert n_samples(router) == learned


def test_a_decision_keeps_the_features_of_its_best_endpoint_and_no_others():
    decision = answered(a_router(3, policy="learned"))
    candidates = decision.candidates

    assert "features" not in vars(candidates)
    assert not {"decode_context_tokens", "memory_used_ratio"} & set(vars(candidates.snapshot))
    assert decision.row is not None
    assert decision.row.base is None  # it holds no other row
    computed = extract(
        candidates.request,
        candidates.snapshot,
        candidates.matched_tokens,
        candidates.prefill_s_per_ktoken,
    )
    for index in range(3):
        np.testing.assert_array_equal(decision.features_of(index), computed.values[index])
