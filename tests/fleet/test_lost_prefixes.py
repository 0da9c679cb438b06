from dataclasses import replace

import numpy as np
import pytest

from builders import a_request, an_endpoint, live_settings, some_blocks
from learning_worlds import with_columns
from lodestar_extproc.decision import Candidates
from lodestar_extproc.fleet.fleet import Fleet
from lodestar_extproc.fleet.lost_prefixes import LOOK_INTERVAL_S, LostPrefixes

CAPACITY_TOKENS = 1600.0
"""A hundred blocks of 16 tokens: what ten prompts of these need."""


def a_prompt(seed, n_blocks=10):
    return a_request(some_blocks(n_blocks, seed))


class Caches:
    """Endpoints whose caches lose what the fleet's index loses."""

    def __init__(self, n=2, **changes):
        self.fleet = Fleet(
            live_settings(),
            [an_endpoint(i, kv_capacity_tokens=CAPACITY_TOKENS, **changes) for i in range(n)],
        )
        self.lost = LostPrefixes()
        self.n_sent = 0

    def see(self, request, at_s=0.0) -> Candidates:
        snapshot = self.fleet.snapshot(at_s)
        tokens, ratio, *_ = self.fleet.match(request, snapshot.endpoints)
        return Candidates(request, snapshot, tokens, ratio, np.full(len(snapshot), 0.1))

    def asked_again(self, candidates):
        request, endpoints = candidates.request, candidates.snapshot.endpoints
        return self.lost.asked_again(request, endpoints, candidates.matched_ratio)

    def place(self, candidates, endpoint=0):
        _, missed_tokens = self.asked_again(candidates)
        self.lost.place(
            candidates.request,
            candidates.snapshot,
            candidates.snapshot.endpoints[endpoint].address,
            uncached_tokens=candidates.uncached_on(endpoint),
            missed_tokens=missed_tokens,
        )

    def send(self, seed, endpoint=0, at_s=0.0):
        candidates = self.see(a_prompt(seed), at_s)
        self.place(candidates, endpoint)
        address = candidates.snapshot.endpoints[endpoint].address
        self.n_sent += 1
        decision_id = f"d{self.n_sent}"
        self.fleet.dispatch(
            decision_id, candidates.request, address, uncached_tokens=1.0, at_s=at_s
        )
        self.fleet.release(decision_id, at_s)

    def shares(self, at_s=0.0):
        return self.asked_again(self.see(a_request(b"nothing"), at_s))[0]


def test_prompts_that_never_return_cost_nothing_to_lose():
    caches = Caches()
    for seed in range(100):
        caches.send(seed)

    assert caches.shares().tolist() == [0.0, 0.0]


def test_what_still_fits_is_not_missed():
    caches = Caches()
    for _ in range(10):
        for seed in range(9):
            caches.send(seed)

    assert caches.shares().tolist() == [0.0, 0.0]


def test_a_little_more_than_fits_is_missed_where_it_was_lost():
    caches = Caches()
    for _ in range(10):
        for seed in range(12):
            caches.send(seed)
    shares = caches.shares()

    assert shares[0] > 0.8
    assert shares[1] == 0.0


def test_what_another_endpoint_holds_is_not_missed():
    caches = Caches()
    for seed in range(8):
        caches.send(seed, endpoint=1)
    for _ in range(10):
        for seed in range(8):
            caches.send(seed, endpoint=1)
        for seed in range(100, 104):
            caches.send(seed, endpoint=0)

    assert caches.shares().tolist() == [0.0, 0.0]


def test_the_past_fades_as_the_cache_is_refilled():
    caches = Caches()
    for _ in range(10):
        for seed in range(12):
            caches.send(seed)
    before = caches.shares()[0]
    for seed in range(1000, 1060):
        caches.send(seed)

    assert caches.shares()[0] < 0.2 * before


def test_an_endpoint_that_caches_nothing_loses_nothing():
    caches = Caches(prefix_caching=False)
    for _ in range(5):
        for seed in range(12):
            caches.send(seed)

    assert caches.shares().tolist() == [0.0, 0.0]


def test_a_capacity_that_becomes_known_later_is_used():
    caches = Caches()
    known = caches.see(a_prompt(0))
    unknown = replace(known, snapshot=with_columns(known.snapshot, kv_capacity_tokens=np.nan))
    caches.place(unknown)
    for _ in range(10):
        for seed in range(12):
            caches.send(seed, at_s=LOOK_INTERVAL_S)

    assert caches.shares(LOOK_INTERVAL_S)[0] > 0.8


def test_who_is_away_for_a_while_is_remembered_and_who_left_is_not():
    caches = Caches()
    for _ in range(10):
        for seed in range(12):
            caches.send(seed)
    before, everyone = caches.shares(), caches.fleet.endpoints
    caches.fleet.set_endpoints(everyone[1:])
    caches.place(caches.see(a_prompt(0), 60.0))
    caches.fleet.set_endpoints(everyone)
    assert caches.shares(60.0)[0] == before[0]

    caches.lost.adopt(everyone[1:])
    assert caches.shares(60.0)[0] == 0.0


@pytest.mark.parametrize("request_", [a_request(b""), a_request(b"short")])
def test_a_prompt_without_a_full_block_misses_nothing(request_):
    caches = Caches()
    caches.place(caches.see(request_))
    shares, missed_tokens = caches.asked_again(caches.see(request_))

    assert shares.tolist() == [0.0, 0.0]
    assert not any(missed_tokens)


def test_what_a_request_asks_for_again_counts_before_it_leaves_and_only_then_for_good():
    caches = Caches()
    for seed in range(12):
        caches.send(seed)
    seen = caches.see(a_prompt(0))
    shares = [caches.asked_again(seen)[0][0] for _ in range(3)]

    assert shares[0] == shares[1] == shares[2] > 0.0
    assert caches.shares()[0] == 0.0
    caches.place(seen, endpoint=1)
    assert caches.shares()[0] == shares[0]


def test_a_prompt_that_reads_no_cache_asks_for_nothing_again():
    caches = Caches()
    for seed in range(20):
        caches.send(seed)
    lost = caches.see(a_prompt(0))
    assert caches.asked_again(lost)[0].max() > 0
    scored = Candidates(
        lost.request._replace(reads_cache=False),
        lost.snapshot,
        np.zeros(2),
        np.zeros(2),
        np.full(2, 0.1),
    )
    assert caches.asked_again(scored)[0].tolist() == [0.0, 0.0]
