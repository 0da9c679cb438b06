"""What is remembered of kept answers: who keeps each, and one chain of hashes a conversation."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import a_request
from lodestar_extproc.request import Keeping
from lodestar_extproc.routing import kept
from lodestar_extproc.routing.kept import Kept, KeptMemory


def a_turn(n_blocks: int, *, before: int | None = None, first: int = 1, step: int = 1):
    """A prompt of so many blocks, which goes on from that of key *before*."""
    blocks = tuple(range(first, first + n_blocks * step, step))
    return a_request(keeping=Keeping(continues=before))._replace(block_hashes=blocks)


def hashes(memory: KeptMemory, key: int) -> tuple[int, ...]:
    prompt = memory.prompt_of(memory.get(key))
    return tuple(prompt.block_hashes)


def a_chain(n_turns: int, blocks_a_turn: int) -> KeptMemory:
    memory = KeptMemory()
    for turn in range(1, n_turns + 1):
        prompt = a_turn(turn * blocks_a_turn, before=turn - 1 or None)
        memory.add(turn, Kept("a", 0.0), prompt)
    return memory


def test_turns_of_one_conversation_hold_its_hashes_once():
    memory = a_chain(5, 10)
    assert memory.n_blocks == 50
    for turn in range(1, 6):
        assert hashes(memory, turn) == tuple(range(1, turn * 10 + 1))


def test_a_long_conversation_takes_no_more_memory_than_its_last_turn():
    tracemalloc.start()
    try:
        memory = a_chain(300, 20)
        bytes_held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    # 6,000 hashes of 40 bytes, and 300 turns of a kilobyte; each turn's own would be 36 MB.
    assert bytes_held < 2e6
    assert memory.n_blocks == 6000


def test_two_that_go_on_from_one_turn_both_find_all_of_it():
    memory = a_chain(2, 10)
    other = a_turn(10)._replace(block_hashes=(*range(1, 11), 900, 901))
    memory.add(9, Kept("a", 0.0), other._replace(keeping=Keeping(continues=1)))
    assert hashes(memory, 1) == tuple(range(1, 11))
    assert hashes(memory, 2) == tuple(range(1, 21))
    assert hashes(memory, 9) == (*range(1, 11), 900, 901)
    memory.pop(9)
    # What held them is gone: lengths are left, and who keeps it.
    assert hashes(memory, 1) == ()
    assert memory.get(1).n_blocks == 10


def test_a_prompt_that_does_not_begin_with_the_one_it_names_shares_nothing():
    memory = KeptMemory()
    memory.add(1, Kept("a", 0.0), a_turn(10))
    memory.add(2, Kept("a", 0.0), a_turn(20, before=1, first=100))
    assert hashes(memory, 1) == tuple(range(1, 11))
    assert memory.n_blocks == 30


def test_beyond_the_bound_the_oldest_keep_their_endpoint_and_lengths_alone(monkeypatch):
    monkeypatch.setattr(kept, "MAX_BLOCKS", 100)
    memory = KeptMemory()
    for key in range(1, 6):
        memory.add(key, Kept(f"engine{key}", 0.0), a_turn(40, first=1000 * key))
        if key == 2:
            memory.use(1)
    assert memory.n_blocks == 80
    assert [len(hashes(memory, key)) for key in range(1, 6)] == [0, 0, 0, 40, 40]
    assert [memory.get(key).address for key in range(1, 6)] == [f"engine{k}" for k in range(1, 6)]
    assert memory.get(1).prompt.prompt_tokens > 0


def test_one_that_was_used_is_not_the_oldest(monkeypatch):
    monkeypatch.setattr(kept, "MAX_BLOCKS", 100)
    memory = KeptMemory()
    for key in (1, 2):
        memory.add(key, Kept("a", 0.0), a_turn(40, first=1000 * key))
    memory.use(1)
    memory.add(3, Kept("a", 0.0), a_turn(40, first=3000))
    assert [len(hashes(memory, key)) for key in (1, 2, 3)] == [40, 0, 40]
    assert memory.oldest()[0] == 2


def test_ids_that_are_given_twice_make_no_ring():
    """No engine does so, but a frame may say it."""
    memory = KeptMemory()
    memory.add(1, Kept("a", 0.0), a_turn(10, before=2))
    memory.add(2, Kept("a", 0.0), a_turn(10, before=1))
    memory.pop(1)
    memory.add(1, Kept("a", 0.0), a_turn(10, before=2))
    assert hashes(memory, 2) == tuple(range(1, 11))
    assert hashes(memory, 1) == tuple(range(1, 11))
    assert memory.n_blocks == 10


@pytest.mark.parametrize("key", [1, 3, 5])
def test_what_is_forgotten_takes_its_hashes_with_it(key):
    memory = a_chain(5, 10)
    memory.pop(key)
    assert memory.get(key) is None
    assert memory.n_blocks == (0 if key == 5 else 50)
    assert len(memory) == 4


# -- whatever is said in whatever order -----------------------------------------------------------

TURNS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "use", "pop"]),
        st.integers(1, 8),
        st.integers(0, 8),  # what it goes on from
        st.booleans(),  # whether it begins as that does
        st.integers(0, 3),  # blocks that it adds
    ),
    max_size=60,
)


@given(TURNS, st.sampled_from([2**20, 12]))
@settings(max_examples=300)
def test_a_prompt_is_found_whole_or_by_its_length_alone(turns, most_blocks):
    memory, said, fresh = KeptMemory(), {}, iter(range(1, 10**6))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kept, "MAX_BLOCKS", most_blocks)
        for what, key, before, follows, n_more in turns:
            if what == "add" and key not in said:
                begins = said.get(before, ()) if follows else ()
                blocks = (*begins, *(next(fresh) for _ in range(n_more)))
                prompt = a_request(keeping=Keeping(continues=before or None))
                memory.add(key, Kept("a", 0.0), prompt._replace(block_hashes=blocks))
                said[key] = blocks
            elif what == "use" and key in said:
                memory.use(key)
            elif what == "pop":
                assert (memory.pop(key) is None) == (said.pop(key, None) is None)
            assert memory.n_blocks <= most_blocks or len(memory._holders) == 1
    assert len(memory) == len(said)
    for key, blocks in said.items():
        assert hashes(memory, key) in (blocks, ())
        assert memory.get(key).n_blocks == len(blocks)
    held = [each.prompt.block_hashes for _, each in memory.recent(99)]
    assert memory.n_blocks == sum(map(len, held))
