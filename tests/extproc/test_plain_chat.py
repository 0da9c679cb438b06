"""The short way to read a chat finds what the long way finds, or leaves it to that."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lodestar_extproc.extproc import body_reading
from lodestar_extproc.extproc.body_reading import InvalidRequest, ParsedBody, read
from lodestar_extproc.extproc.budget import OverBudget
from lodestar_extproc.extproc.long_strings import LARGE_BYTES
from lodestar_extproc.extproc.plain_chat import FEW_MESSAGES, plain_chat
from lodestar_extproc.request import RequestKind

CHAT = RequestKind.CHAT_COMPLETIONS
TEXTS = st.text(max_size=30) | st.integers(40, 90).map("ab ".__mul__)
ODD = st.sampled_from([None, True, False, 0, 1, 3, "3", "", "x", 2.5, [], {}, ["x"], {"id": "x"}])
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool", "system", ""]), "content": TEXTS},
    optional={"name": TEXTS, "tool_call_id": TEXTS, "tool_calls": ODD, "reasoning": TEXTS},
)
SAID = st.lists(MESSAGES | MESSAGES | MESSAGES | ODD, max_size=5)
FIELDS = (
    *("stream", "max_tokens", "max_completion_tokens", "temperature", "stop", "seed"),
    *("logprobs", "n", "user", "store", "system", "tools", "documents", "cache_salt"),
    *("reasoning_effort", "prompt_logprobs", "echo", "sampling_params", "options"),
    *("truncation", "metadata", "conversation", "max_output_tokens", "unheard_of"),
)
BODIES = st.fixed_dictionaries(
    {"messages": SAID | st.lists(SAID, min_size=1, max_size=2) | ODD},
    optional={"model": st.sampled_from(["m", "", None, "\ud800", 5]), **dict.fromkeys(FIELDS, ODD)},
)


def found(body: bytes, kind: RequestKind = CHAT) -> ParsedBody | tuple[type, str]:
    """What is read of *body*, or what is wrong with it."""
    try:
        return read(body, kind)
    except (InvalidRequest, OverBudget) as error:
        return type(error), str(error)


def found_in_steps(body: bytes, kind: RequestKind = CHAT) -> ParsedBody | tuple[type, str]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(body_reading, "plain_chat", lambda _: None)
        return found(body, kind)


@given(fields=BODIES, kind=st.sampled_from([CHAT, CHAT, RequestKind.MESSAGES, RequestKind.OLLAMA]))
@example(fields={"messages": [{"role": "user", "content": "hi"}], "n": 3}, kind=CHAT)
@example(fields={"messages": [{"role": "user", "content": "hi"}], "tools": [{}]}, kind=CHAT)
def test_both_ways_find_the_same(fields, kind):
    body = json.dumps(fields).encode()
    assert found(body, kind) == found_in_steps(body, kind)


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_means_the_same_both_ways(name):
    for value in (None, True, 0, 3, "x", ["x"], {"id": "x", "effort": "low", "n": 2}):
        fields = {"model": "m", "messages": [{"role": "user", "content": "é" * 90}], name: value}
        body = json.dumps(fields).encode()
        assert found(body) == found_in_steps(body)


@pytest.mark.parametrize("n_bytes", [100, 40_000, 300_000, LARGE_BYTES + 9])
def test_a_prompt_of_any_length_is_the_same_both_ways(n_bytes):
    said = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "a b" * n_bytes}]
    body = json.dumps({"model": "m", "messages": said, "stream": True, "max_tokens": 9}).encode()
    assert found(body[:n_bytes]) == found_in_steps(body[:n_bytes])
    assert found(body) == found_in_steps(body)


def test_a_chat_goes_the_short_way_until_it_has_many_messages():
    said = [{"role": "user", "content": "hi"}] * FEW_MESSAGES
    assert plain_chat({"model": "m", "messages": said, "temperature": 0.5}) is not None
    assert plain_chat({"model": "m", "messages": [*said, said[0]]}) is None


@pytest.mark.parametrize("said", [None, [], [[]], ["hi"], [{"role": "user", "content": ["hi"]}]])
def test_what_is_no_plain_chat_is_read_in_steps(said):
    assert plain_chat({"model": "m", "messages": said}) is None
