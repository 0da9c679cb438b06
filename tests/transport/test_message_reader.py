"""MessageReader: messages of a call, whatever pieces they come in."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestar_extproc.transport.calls import MAX_MESSAGE_BYTES, CallRefused
from lodestar_extproc.transport.http2.messages import PREFIX, MessageReader

MIB = 2**20


def framed(message: bytes) -> bytes:
    return PREFIX.pack(0, len(message)) + message


@given(
    st.lists(st.binary(max_size=40), max_size=6),
    st.lists(st.integers(1, 50), min_size=1, max_size=8),
)
def test_messages_are_the_same_in_whatever_pieces_they_come(messages, sizes):
    sent, reader, came, at = b"".join(map(framed, messages)), MessageReader("identity"), [], 0
    while at < len(sent):
        size = sizes[at % len(sizes)]
        came += reader.feed(sent[at : at + size])
        at += size
        assert reader.is_between == (b"".join(map(framed, came)) == sent[:at])

    assert came == messages


def test_a_long_message_is_put_together_once_and_not_copied():
    sent, reader = framed(bytes(10 * MIB)), MessageReader("identity")
    tracemalloc.start()
    try:
        came = [
            m for at in range(0, len(sent), MIB // 4) for m in reader.feed(sent[at : at + MIB // 4])
        ]
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert came == [bytes(10 * MIB)]
    assert peak_bytes < 12 * MIB


def test_a_message_that_says_it_is_too_long_is_refused_before_it_comes():
    with pytest.raises(CallRefused, match="larger than max"):
        MessageReader("identity").feed(PREFIX.pack(0, MAX_MESSAGE_BYTES + 1))
