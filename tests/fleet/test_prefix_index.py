import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestar_extproc.fleet.prefix_index import PrefixIndex
from lodestar_extproc.request import BLOCK_BYTES, hash_blocks

prompts = st.lists(st.sampled_from([b"a", b"b"]), max_size=12).map(
    lambda blocks: b"".join(b * BLOCK_BYTES for b in blocks)
)


def common_blocks(a, b):
    n = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        n += 1
    return n


@given(st.lists(prompts, max_size=20), prompts)
def test_without_eviction_a_match_is_the_longest_common_prefix(past, prompt):
    index = PrefixIndex(10_000)
    for each in past:
        index.insert(hash_blocks(each))
    longest = max((common_blocks(hash_blocks(p), hash_blocks(prompt)) for p in past), default=0)

    assert index.match(hash_blocks(prompt)) == longest


@given(st.lists(prompts, min_size=1, max_size=30), st.integers(1, 8))
def test_never_holds_more_than_its_capacity_and_never_loses_a_beginning_first(past, capacity):
    index = PrefixIndex(capacity)
    for each in past:
        hashes = hash_blocks(each)
        index.insert(hashes)

        assert len(index) <= capacity
        assert index.match(hashes) == min(len(hashes), capacity)


def test_the_least_recently_used_prompt_goes_first():
    index, old, new = PrefixIndex(4), hash_blocks(b"o" * 128), hash_blocks(b"n" * 128)
    index.insert(old)
    index.insert(new)
    index.insert(old)
    index.insert(hash_blocks(b"z" * 64))

    assert index.match(old) == 2
    assert index.match(new) == 1


def test_a_removed_prompt_is_forgotten_and_a_smaller_cache_holds_less():
    index, hashes = PrefixIndex(8), hash_blocks(b"o" * 256)
    index.insert(hashes)
    index.resize(2)
    assert index.match(hashes) == 2

    index.remove(hashes)
    assert index.match(hashes) == len(index) == 0


def test_a_changed_first_block_changes_every_hash():
    one, other = hash_blocks(b"a" * 256), hash_blocks(b"b" + b"a" * 255)

    assert not set(one) & set(other)
    assert hash_blocks(b"a" * 256, seed=1)[0] != one[0]


class BlockByBlock:
    """What the index must be equal to: one LRU of single blocks."""

    def __init__(self, capacity):
        self.blocks, self.capacity = [], capacity

    def insert(self, hashes):
        for block in reversed(hashes):
            if block in self.blocks:
                self.blocks.remove(block)
            self.blocks.append(block)
        del self.blocks[: max(0, len(self.blocks) - self.capacity)]

    def match(self, hashes):
        return next((i for i, h in enumerate(hashes) if h not in self.blocks), len(hashes))


def view(hashes):
    """As the simulator has them."""
    return np.array(hashes, np.uint64).data


@pytest.mark.parametrize("held", [tuple, view])
@given(st.lists(prompts, min_size=1, max_size=30), st.integers(1, 20), prompts)
def test_is_an_lru_of_single_blocks(held, past, capacity, prompt):
    index, plain = PrefixIndex(capacity), BlockByBlock(capacity)
    for each in past:
        hashes = hash_blocks(each)
        index.insert(held(hashes))
        plain.insert(hashes)

        assert len(index) == len(plain.blocks)
        assert index.match(held(hash_blocks(prompt))) == plain.match(hash_blocks(prompt))


def test_removing_a_prompt_leaves_what_others_share_with_it():
    index = PrefixIndex(100)
    first, second = (hash_blocks(b"s" * 128 + own * 128) for own in (b"a", b"b"))
    index.insert(first)
    index.insert(second)
    index.remove(second)

    assert (index.match(first), index.match(second)) == (4, 2)


def test_what_is_in_flight_is_not_evicted():
    index, running, idle = PrefixIndex(4), hash_blocks(b"r" * 128), hash_blocks(b"i" * 128)
    held = index.hold(running)[0]
    index.insert(idle)
    index.insert(hash_blocks(b"n" * 64))

    assert (index.match(running), index.match(idle)) == (2, 1)
    index.let_go(held)
    index.insert(hash_blocks(b"m" * 256))
    assert index.match(running) == 0


def test_who_ends_last_is_evicted_last():
    index, long, short = PrefixIndex(4), hash_blocks(b"l" * 128), hash_blocks(b"s" * 128)
    first, second = index.hold(long)[0], index.hold(short)[0]
    index.let_go(second)
    index.let_go(first)
    index.insert(hash_blocks(b"n" * 128))

    assert (index.match(long), index.match(short)) == (2, 0)


def test_answers_take_their_place_too():
    index, prompt = PrefixIndex(4), hash_blocks(b"p" * 256)
    index.let_go(index.hold(prompt)[0])
    index.set_aside(2)
    index.insert(hash_blocks(b""))

    assert index.match(prompt) == 2


def test_whoever_ends_after_a_restart_leaves_nothing():
    index, prompt = PrefixIndex(4), hash_blocks(b"p" * 128)
    held = index.hold(prompt)[0]
    index.clear()
    index.let_go(held)

    assert index.match(prompt) == len(index) == 0


@given(st.lists(st.tuples(prompts, st.booleans()), max_size=30), st.integers(1, 20))
def test_any_holders_leave_the_index_as_it_would_be_without_them(past, capacity):
    index, held = PrefixIndex(capacity), []
    for each, ends in past:
        held.append((hash_blocks(each), index.hold(hash_blocks(each))[0]))
        assert all(index.match(hashes) == len(hashes) for hashes, _ in held)
        if ends:
            index.let_go(held.pop(0)[1])
    for _, last in held:
        index.let_go(last)

    assert len(index) <= capacity
    assert index.insert(hash_blocks(b"c" * BLOCK_BYTES * capacity)) <= capacity
    assert len(index) == capacity


def test_where_a_prompt_that_never_came_was_removed_ends_still_go_before_beginnings():
    index = PrefixIndex(6)
    index.insert([1, 2, 3, 4, 5, 6])
    index.insert([1, 2])
    index.remove([1, 2, 3, 4])  # others go on from it: it stays
    index.insert([20, 21, 22, 23])

    assert index.match([1, 2, 3, 4]) == 2


def test_who_goes_on_from_a_prompt_keeps_his_own_where_its_last_block_alone_is_gone():
    index = PrefixIndex(100)
    index.insert([1, 2, 3, 4, 5, 6])
    index.insert([1, 2, 3])
    # What is gone ends somewhere in the block after its last: nothing is known of that one.
    index.cut([1, 2, 3], 2, 4)
    assert index.match([1, 2, 3, 4, 5, 6]) == 6
    index.cut([1, 2, 3], 2, 3)
    assert index.match([1, 2, 3, 4, 5, 6]) == 2
