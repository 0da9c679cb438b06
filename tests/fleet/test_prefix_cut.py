"""What an index forgets where its engine says what it has given up."""

from __future__ import annotations

import random

import pytest

from lodestar_extproc.fleet.prefix_index import PrefixIndex
from lodestar_extproc.fleet.prefix_tree import PrefixTree

PROMPT = [1, 2, 3, 4, 5, 6]


def index_of(*prompts: list[int], tree: PrefixTree | None = None) -> PrefixIndex:
    index = PrefixIndex(100, tree)
    for prompt in prompts:
        index.insert(prompt)
    return index


def test_the_end_of_a_prompt_is_forgotten():
    index = index_of(PROMPT)
    index.cut(PROMPT, n_kept=2, n_gone=4)
    assert (index.match(PROMPT), len(index)) == (2, 2)


def test_what_goes_on_after_what_is_gone_is_forgotten_too():
    longer = [*PROMPT, 7, 8]
    index = index_of(PROMPT, longer, [*PROMPT[:5], 9])
    index.cut(PROMPT, n_kept=2, n_gone=4)
    assert (index.match(longer), len(index)) == (2, 2)


def test_what_parts_before_is_kept_with_what_it_shares():
    other = [1, 2, 3, 9]
    index = index_of(PROMPT, other)
    index.cut(PROMPT, n_kept=2, n_gone=4)
    assert (index.match(PROMPT), index.match(other), len(index)) == (3, 4, 4)


def test_what_is_in_flight_is_kept():
    index = index_of()
    held, _ = index.hold(PROMPT)
    index.cut(PROMPT, n_kept=0, n_gone=2)
    assert index.match(PROMPT) == 6
    index.let_go(held)
    index.cut(PROMPT, n_kept=0, n_gone=2)
    assert (index.match(PROMPT), len(index)) == (0, 0)


def test_another_cache_keeps_its_own():
    tree = PrefixTree()
    one, other = index_of(PROMPT, tree=tree), index_of(PROMPT, tree=tree)
    one.cut(PROMPT, n_kept=1, n_gone=3)
    assert (one.match(PROMPT), other.match(PROMPT)) == (1, 6)


def test_a_prompt_that_is_not_there_is_no_matter():
    index = index_of(PROMPT)
    index.cut([8, 9], n_kept=0, n_gone=1)
    index.cut([1, 2, 9], n_kept=2, n_gone=9)
    assert index.match(PROMPT) == 6


@pytest.mark.parametrize("seed", range(20))
def test_it_is_what_cutting_every_prompt_by_itself_leaves(seed):
    rng = random.Random(seed)
    tree = PrefixTree()
    index, beside = PrefixIndex(10_000, tree), PrefixIndex(10_000, tree)
    prompts: list[list[int]] = []
    for n in range(60):
        known = rng.choice(prompts) if prompts else []
        prompt = [*known[: rng.randint(0, len(known))], *range(n * 100, n * 100 + 8)]
        prompts.append(prompt)
        rng.choice((index, beside)).insert(prompt)
        index.insert(prompt)
        if rng.random() < 0.4:
            cut = rng.choice(prompts)
            place = rng.randint(0, len(cut))
            before = [index.match(each) for each in prompts]
            index.cut(cut, place, place)
            for each, n_before in zip(prompts, before, strict=True):
                shares = each[:place] == cut[:place]
                if not shares or n_before <= place:
                    assert index.match(each) == n_before
                elif place:
                    assert index.match(each) == place
    index.clear()
    assert len(index) == 0
