"""Caches that stand in one tree are what each would be alone."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestar_extproc.fleet.prefix_index import PrefixIndex
from lodestar_extproc.fleet.prefix_tree import NOWHERE, PrefixTree

N_CACHES = 3


def a_prompt(rng, alphabet, most=12):
    """Chained hashes of blocks that are drawn from few."""
    hashes, state = [], 0
    for _ in range(rng.randint(0, most)):
        state = hash((state, rng.randrange(alphabet)))
        hashes.append(state)
    return hashes


class Pair:
    """One cache, in a tree with others and alone, told the same."""

    def __init__(self, capacity, tree):
        self.together, self.alone = PrefixIndex(capacity, tree), PrefixIndex(capacity)
        self.held = []

    def do(self, rng, prompt):
        what = rng.choice(["insert", "hold", "hold", "let_go", "never_came", "resize", "clear"])
        if what in ("let_go", "never_came") and self.held:
            together, alone, prompt = self.held.pop(rng.randrange(len(self.held)))
            self.together.let_go(together)
            self.alone.let_go(alone)
            if what == "never_came":
                self.together.remove(prompt)
                self.alone.remove(prompt)
        elif what == "insert":
            assert self.together.insert(prompt) == self.alone.insert(prompt)
        elif what == "hold":
            (together, n_new), (alone, n_new_alone) = (
                each.hold(prompt) for each in (self.together, self.alone)
            )
            assert n_new == n_new_alone
            self.held.append((together, alone, prompt))
        elif what == "resize":
            capacity, aside = rng.randint(1, 30), rng.randint(0, 4)
            for each in (self.together, self.alone):
                each.set_aside(aside)
                each.resize(capacity)
        elif what == "clear" and rng.random() < 0.2:
            self.together.clear()
            self.alone.clear()


@given(st.integers(0, 2**32), st.integers(2, 3))
def test_each_cache_holds_and_evicts_as_it_would_alone(seed, alphabet):
    rng, tree = random.Random(seed), PrefixTree()
    pairs = [Pair(rng.randint(1, 30), tree) for _ in range(N_CACHES)]
    prompts = [a_prompt(rng, alphabet) for _ in range(12)]
    for _ in range(60):
        rng.choice(pairs).do(rng, rng.choice(prompts))
        for prompt in prompts:
            matched = tree.matched_blocks(prompt)
            for pair in pairs:
                assert matched[pair.together.place] == pair.alone.match(prompt)
                assert len(pair.together) == len(pair.alone)
            assert tree.longest_match(prompt) == matched.max()


@pytest.mark.parametrize("n_caches", [1, 7, 70])
def test_one_walk_tells_of_every_cache_how_far_it_goes(n_caches):
    tree = PrefixTree()
    caches = [PrefixIndex(1000, tree) for _ in range(n_caches)]
    prompt = list(range(1, 200))
    for k, cache in enumerate(caches):
        cache.insert(prompt[: 2 * k])

    matched = tree.matched_blocks(prompt)
    assert [matched[cache.place] for cache in caches] == [2 * k for k in range(n_caches)]
    assert matched[NOWHERE] == 0


def test_who_has_left_leaves_nothing_and_its_place_is_taken_by_another():
    tree = PrefixTree()
    first, stays = PrefixIndex(100, tree), PrefixIndex(100, tree)
    first.insert([1, 2, 3])
    stays.insert([1, 2])
    held, _ = first.hold([1, 2, 3, 4])
    first.close()
    second = PrefixIndex(100, tree)

    assert second.place == first.place
    assert np.flatnonzero(tree.matched_blocks([1, 2, 3])).tolist() == [stays.place]
    second.insert([1, 2, 3, 4])
    second.let_go(held)  # the first one's
    assert second.match([1, 2, 3, 4]) == 4


def test_a_prompt_that_many_caches_hold_is_stored_once():
    tree, prompt = PrefixTree(), list(range(1, 1000))
    for _ in range(50):
        PrefixIndex(2000, tree).insert(prompt)

    runs = [tree.root]
    n_blocks = 0
    while runs:
        run = runs.pop()
        n_blocks += run.n_blocks
        runs += run.children.values()
    assert n_blocks == len(prompt)
