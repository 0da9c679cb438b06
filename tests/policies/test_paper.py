"""Each part of the paper's router does what the paper says of it."""

import random

import numpy as np
import pytest

from builders import a_prompt, a_request, an_endpoint, live_settings
from learning_worlds import LinearWorld, a_snapshot, see
from lodestar_extproc.config.setting import SettingError
from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.decision import Candidates, Reason
from lodestar_extproc.learning.background import TrainingInPlace
from lodestar_extproc.learning.learner import Learner
from lodestar_extproc.learning.mlp import MLPPredictor
from lodestar_extproc.learning.mlp_training import HIDDEN_LAYERS
from lodestar_extproc.learning.trust import Trust
from lodestar_extproc.policies.paper import LodestarPaper, filtered
from lodestar_extproc.policies.prefix_cache import PrefixCache

RNG = random.Random(0)
ENDPOINTS = [an_endpoint(i) for i in range(8)]


def a_paper_router(world, n_samples, **changes):
    live = live_settings(burn_in_samples=0, trust_max_error_ratio=1e9, **changes)
    model = MLPPredictor(random.Random(0), live, start_executor=TrainingInPlace)
    learner = Learner(model, Trust(live))
    world.teach(learner, n_samples)
    return LodestarPaper(learner), learner


def a_world():
    return LinearWorld(("fast", "fast", "slow"))


@pytest.fixture(scope="module")
def trained():
    """A router after its first training."""
    return a_paper_router(a_world(), 600, mlp_retrain_samples=600)


def test_the_heuristic_decides_until_a_thousand_samples_were_trained_on():
    world = a_world()
    router, learner = a_paper_router(world, 999)
    candidates = world.candidates()
    ranking = router.rank(candidates, random.Random(1))

    assert ranking.reason is Reason.BURN_IN
    assert ranking.order == PrefixCache().rank(candidates, random.Random(1)).order
    assert not learner.is_trained

    world.teach(learner, 1)
    assert learner.is_trained


def test_the_network_has_three_layers_of_128_on_z_scores(trained):
    _, learner = trained
    network = learner.predictor._network

    assert HIDDEN_LAYERS == (128, 128, 128)
    assert [w.shape[1] for w in network.weights] == [128, 128, 128, 1]
    scaled = (learner.predictor._inputs(_rows(500), ["fast"] * 500, network) - network.mean)[:, :-2]
    assert np.abs((scaled / network.scale[:-2]).mean(axis=0)).max() < 0.3


def _rows(n):
    return np.array([s.features for s in a_world().samples(n)])


def test_then_the_lowest_ttft_wins_whatever_it_does_to_others(trained):
    router, learner = trained
    world, decided = a_world(), 0
    for _ in range(50):
        candidates = world.candidates()
        ranking = router.rank(candidates, RNG)
        if ranking.reason is Reason.MODEL:
            predicted = learner.predict(candidates.features, world.endpoints).ttft_s
            decided += 1
            assert ranking.order[0] == predicted.argmin()

    assert decided > 30


def test_a_choice_outside_of_what_was_learned_is_the_heuristics(trained):
    router, _ = trained
    world = a_world()
    busy = a_snapshot(world.endpoints, decode_requests=[3, 1, 2])
    candidates = see(busy, 6500.0)  # none was above 6000 tokens
    ranking = router.rank(candidates, random.Random(1))

    assert ranking.reason is Reason.OUT_OF_RANGE
    assert ranking.order == PrefixCache().rank(candidates, RNG).order == (1, 2, 0)


def order(endpoints=ENDPOINTS, seed=0, kv_usage=0.9, hit=200.0, n_tokens=1000):
    """Addresses in the filter's order."""
    request = a_request(a_prompt(n_tokens, seed))
    snapshot = a_snapshot(endpoints, kv_usage_ratio=kv_usage)
    matched, n = np.full(len(endpoints), hit), len(endpoints)
    candidates = Candidates(request, snapshot, matched, matched / n_tokens, np.full(n, 0.1))
    return [endpoints[i].address for i in filtered(tuple(range(n)), candidates)]


UNFILTERED = [e.address for e in ENDPOINTS]


def pairs(endpoints=ENDPOINTS, n=40):
    return [set(order(endpoints, seed)[:2]) for seed in range(n)]


class TestFilter:
    def test_puts_two_endpoints_first_and_keeps_the_models_order_within(self):
        for seed in range(10):
            found = order(seed=seed)

            assert sorted(found[:2]) == found[:2]
            assert sorted(found[2:]) == found[2:]
            assert set(found) == set(UNFILTERED)

    def test_sends_prompts_of_one_prefix_to_one_pair(self):
        prompt = a_prompt(400, seed=3)
        found = set()
        for seed in range(5):
            request = a_request(prompt + a_prompt(600, seed=50 + seed))
            snapshot = a_snapshot(ENDPOINTS, kv_usage_ratio=0.9)
            hit = np.full(8, 400.0)
            candidates = Candidates(request, snapshot, hit, hit / 1000, np.full(8, 0.1))
            found.add(frozenset(filtered(tuple(range(8)), candidates)[:2]))

        assert len(found) == 1

    def test_spreads_prefixes_over_the_fleet(self):
        assert set.union(*pairs()) == set(UNFILTERED)

    def test_does_not_depend_on_the_order_of_endpoints(self):
        assert pairs(ENDPOINTS[::-1]) == pairs()

    def test_an_endpoint_that_joins_leaves_every_prefix_one_of_its_pair(self):
        before, after = pairs(ENDPOINTS[:7]), pairs()

        assert all(old & new for old, new in zip(before, after, strict=True))
        assert before != after

    @pytest.mark.parametrize(
        "idle", [{"kv_usage": 0.79}, {"hit": 100.0}, {"kv_usage": [1.0] * 4 + [0.5] * 4}]
    )
    def test_rests_while_caches_are_not_full_or_nothing_is_to_be_kept(self, idle):
        assert order(**idle) == UNFILTERED

    def test_knows_full_caches_by_its_own_count_where_none_was_scraped(self):
        snapshot = a_snapshot(
            ENDPOINTS, decode_context_tokens=39_000.0, kv_capacity_tokens=40_000.0
        )
        request, hit = a_request(a_prompt(1000)), np.full(8, 500.0)
        candidates = Candidates(request, snapshot, hit, hit / 1000, np.full(8, 0.1))

        assert filtered(tuple(range(8)), candidates) != tuple(range(8))

    def test_leaves_a_prompt_without_blocks_alone(self):
        snapshot = a_snapshot(ENDPOINTS, kv_usage_ratio=0.9)
        hit = np.full(8, 500.0)
        request = a_request()._replace(block_hashes=())
        candidates = Candidates(request, snapshot, hit, hit / 1000, np.full(8, 0.1))

        assert filtered(tuple(range(8)), candidates) == tuple(range(8))


def test_it_refuses_another_model_and_says_what_to_do():
    with pytest.raises(SettingError, match='made for predictor "mlp": set it'):
        PoolSettings(policy="lodestar_paper")

    assert PoolSettings(policy="lodestar_paper", predictor="mlp").predictor == "mlp"
