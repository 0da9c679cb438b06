"""Every fixed policy passes one list of checks; then what is particular to each."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import a_fleet, a_prompt, a_request, an_endpoint, candidates_of, dispatch
from lodestar_extproc.config.settings import FIXED_POLICIES
from lodestar_extproc.endpoint import EndpointMetrics
from lodestar_extproc.features import Feature, kv_usage_ratio
from lodestar_extproc.policies import session_affinity
from lodestar_extproc.policies.heuristics import HEURISTICS
from lodestar_extproc.policies.prefix_cache import deviation


def busy_fleet(seed: int, n: int):
    """A fleet of *n* with random load, caches, decodes and scrapes."""
    rng, fleet = random.Random(seed), a_fleet(n)
    for i in range(rng.randrange(40)):
        address = rng.choice(fleet.endpoints).address
        request = a_request(a_prompt(rng.randrange(1, 3000), seed=rng.randrange(5)))
        dispatch(fleet, f"d{i}", address, request, at_s=i / 10)
        if rng.random() < 0.5:
            fleet.first_token(f"d{i}", i / 10 + 1)
        if rng.random() < 0.3:
            fleet.release(f"d{i}", i / 10 + 2)
    for endpoint in fleet.endpoints:
        if rng.random() < 0.5:
            metrics = EndpointMetrics(
                rng.random() * 9, rng.choice([None, 3.0]), rng.choice([None, 0.0, 1.0])
            )
            fleet.record_metrics(endpoint.address, metrics, 3.9)
    return fleet


@pytest.mark.parametrize("name", HEURISTICS)
class TestEveryPolicy:
    @settings(max_examples=30)
    @given(seed=st.integers(0, 10_000), n=st.integers(1, 9))
    def test_ranks_every_candidate_exactly_once(self, name, seed, n):
        policy, rng = HEURISTICS[name](), random.Random(seed)
        fleet = busy_fleet(seed, n)
        for _ in range(3):
            ranking = policy.rank(candidates_of(fleet, at_s=4.0), rng)

            assert sorted(ranking.order) == list(range(n))
            assert 0 < ranking.propensity <= 1
            policy.dispatched(candidates_of(fleet, at_s=4.0), ranking)

    def test_is_repeatable_by_seed(self, name):
        candidates = candidates_of(busy_fleet(3, 6), at_s=4.0)
        first = [HEURISTICS[name]().rank(candidates, random.Random(7)).order for _ in range(3)]

        assert first[0] == first[1] == first[2]

    def test_uses_every_idle_equal_endpoint(self, name):
        policy, rng, fleet = HEURISTICS[name](), random.Random(1), a_fleet(4)
        each = [candidates_of(fleet, a_request(a_prompt(20, seed))) for seed in range(200)]
        chosen = {sent(policy, candidates, rng) for candidates in each}

        assert chosen == {0, 1, 2, 3}

    def test_bears_its_name(self, name):
        assert HEURISTICS[name]().name == name

    def test_routes_a_prompt_without_blocks(self, name):
        request = a_request(b"hi", prompt_tokens=1.0)
        ranking = HEURISTICS[name]().rank(candidates_of(a_fleet(2), request), random.Random(0))

        assert sorted(ranking.order) == [0, 1]


def test_every_policy_may_be_configured():
    assert set(FIXED_POLICIES) == set(HEURISTICS)


def sent(policy, candidates, rng=None):
    """Where a request that leaves goes."""
    ranking = policy.rank(candidates, random.Random(0) if rng is None else rng)
    policy.dispatched(candidates, ranking)
    return ranking.order[0]


def first(name, fleet, request=None, at_s=1.0):
    chosen = HEURISTICS[name]().rank(candidates_of(fleet, request, at_s), random.Random(0)).order[0]
    return fleet.endpoints[chosen].address


def test_round_robin_visits_all_before_any_again():
    policy, fleet = HEURISTICS["round_robin"](), a_fleet(3)
    order = [sent(policy, candidates_of(fleet)) for _ in range(6)]

    assert order == [0, 1, 2, 0, 1, 2]


def test_round_robin_takes_a_turn_when_a_request_leaves_and_wherever_it_was_sent():
    policy, candidates = HEURISTICS["round_robin"](), candidates_of(a_fleet(3))
    ranking = policy.rank(candidates, random.Random(0))
    assert policy.rank(candidates, random.Random(0)) == ranking

    policy.dispatched(candidates, ranking._replace(order=(2, 0, 1)))
    assert policy.rank(candidates, random.Random(0)).order == (1, 2, 0)


def test_least_request_takes_the_emptiest():
    fleet = a_fleet(2)
    dispatch(fleet, "a", fleet.endpoints[0].address)

    assert first("least_request", fleet) == fleet.endpoints[1].address


def test_prefix_cache_follows_the_hit_while_balanced():
    fleet = a_fleet(3)
    dispatch(fleet, "a", fleet.endpoints[2].address)
    fleet.release("a", 0.5)

    assert first("prefix_cache", fleet) == fleet.endpoints[2].address


def test_prefix_cache_leaves_the_hit_when_out_of_balance():
    fleet = a_fleet(3)
    for i in range(9):
        dispatch(fleet, f"a{i}", fleet.endpoints[2].address)

    assert first("prefix_cache", fleet) != fleet.endpoints[2].address


def test_affinity_sticks_to_a_warm_cache_behind_a_queue():
    fleet = a_fleet(2)
    dispatch(fleet, "warm", fleet.endpoints[0].address)
    fleet.release("warm", 0.1)
    dispatch(fleet, "queue", fleet.endpoints[0].address, a_request(a_prompt(20_000, 5)))

    assert first("prefix_affinity_token_load", fleet) == fleet.endpoints[0].address
    assert first("lmetric", fleet) == fleet.endpoints[1].address


def test_affinity_breaks_when_the_queue_costs_more_than_its_bound():
    fleet = a_fleet(2)
    dispatch(fleet, "warm", fleet.endpoints[0].address)
    fleet.release("warm", 0.1)
    huge = a_request(b"", prompt_tokens=300_000.0, block_hashes=())
    dispatch(fleet, "queue", fleet.endpoints[0].address, huge)

    assert first("prefix_affinity_token_load", fleet) == fleet.endpoints[1].address


def test_cache_cost_counts_what_decodes_hold():
    fleet = a_fleet(2)
    dispatch(fleet, "a", fleet.endpoints[0].address, a_request(a_prompt(3000, 1)))
    fleet.first_token("a", 0.5)

    assert first("cache_cost", fleet) == fleet.endpoints[1].address


def test_least_load_prices_a_full_cache():
    fleet = a_fleet(2)
    full = EndpointMetrics(running_requests=1.0, waiting_requests=0.0, kv_usage_ratio=0.99)
    fleet.record_metrics(fleet.endpoints[0].address, full, 1.0)

    assert first("least_load", fleet) == fleet.endpoints[1].address


class TestSessionAffinity:
    def first(self, policy, fleet, at_s=1.0, **request):
        candidates = candidates_of(fleet, a_request(**request), at_s)
        return candidates.snapshot.endpoints[sent(policy, candidates)].address

    @pytest.mark.parametrize(
        "same",
        [{"session": 7}, {"session": None, "prompt": a_prompt(100, 3)}],
        ids=["named", "by beginning"],
    )
    def test_a_session_stays_however_busy_its_endpoint_is(self, same):
        policy, fleet = HEURISTICS["session_affinity"](), a_fleet(3)
        home = self.first(policy, fleet, **same)
        for i in range(9):
            dispatch(fleet, f"d{i}", home)

        assert self.first(policy, fleet, **same) == home
        assert self.first(policy, fleet, session=8) != home

    def test_a_session_moves_once_when_its_endpoint_may_not_be_chosen(self):
        policy, fleet = HEURISTICS["session_affinity"](), a_fleet(3)
        home = self.first(policy, fleet, session=7)
        everyone = fleet.endpoints
        fleet.set_endpoints([e for e in everyone if e.address != home])
        moved = self.first(policy, fleet, session=7)
        fleet.set_endpoints(everyone)

        assert self.first(policy, fleet, session=7) == moved != home

    def test_a_session_is_kept_for_300_s_after_its_last_request(self):
        policy, fleet = HEURISTICS["session_affinity"](), a_fleet(2)
        home = self.first(policy, fleet, at_s=0.0, session=7)
        dispatch(fleet, "d", home)
        fleet.first_token("d", 1.0)

        assert self.first(policy, fleet, at_s=299.0, session=7) == home
        assert self.first(policy, fleet, at_s=598.0, session=7) == home
        assert self.first(policy, fleet, at_s=899.0, session=7) != home

    def test_a_session_is_bound_to_where_a_preference_sent_it(self):
        policy, candidates = HEURISTICS["session_affinity"](), candidates_of(a_fleet(3))
        ranking = policy.rank(candidates, random.Random(0))
        elsewhere = ranking.order[-1]
        policy.dispatched(candidates, ranking._replace(order=ranking.order[::-1]))

        assert policy.rank(candidates, random.Random(0)).order[0] == elsewhere

    def test_no_more_sessions_are_kept_than_set(self, monkeypatch):
        monkeypatch.setattr(session_affinity, "MAX_SESSIONS", 10)
        policy, fleet = HEURISTICS["session_affinity"](), a_fleet(2)
        for session in range(50):
            self.first(policy, fleet, session=session)

        assert len(policy._bound) == 10


def test_an_endpoint_without_cache_never_counts_as_a_hit():
    endpoints = [an_endpoint(1, prefix_caching=False), an_endpoint(2)]
    fleet = a_fleet(0)
    fleet.set_endpoints(endpoints)
    dispatch(fleet, "a", endpoints[0].address)

    assert candidates_of(fleet).matched_tokens.tolist() == [0.0, 0.0]


@settings(max_examples=50)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 70))
def test_prefix_cache_deviates_as_numpy_does_to_the_last_bit(seed, n):
    counts = busy_fleet(seed, n).snapshot(4.0).in_flight

    assert deviation(counts, sum(counts.tolist()) / n) == float(counts.std())


@settings(max_examples=50)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 9))
def test_least_load_sees_the_kv_usage_that_the_model_sees(seed, n):
    candidates = candidates_of(busy_fleet(seed, n), at_s=4.0)
    feature = candidates.features.values[:, Feature.KV_USAGE_RATIO]

    assert kv_usage_ratio(candidates.snapshot).tolist() == feature.tolist()
