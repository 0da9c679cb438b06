"""The short way to write a message is the long way's, byte for byte, or none."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestar_extproc.extproc import messages
from lodestar_extproc.extproc.body import parse
from lodestar_extproc.extproc.canonical import Source
from lodestar_extproc.extproc.json_form import json_form
from lodestar_extproc.extproc.long_strings import LARGE_BYTES, LongStrings
from lodestar_extproc.extproc.messages import MessageWriter
from lodestar_extproc.extproc.plain_message import plain_message
from lodestar_extproc.request import RequestKind

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
TEXTS = st.text(max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
ARGUMENTS = VALUES | VALUES.map(json.dumps) | st.sampled_from(['{"a": 1e30}', "{", '{ "a":1 }'])
CALLS = st.fixed_dictionaries(
    {},
    optional={
        "id": TEXTS | st.none(),
        "type": TEXTS,
        "function": st.fixed_dictionaries(
            {}, optional={"name": TEXTS | st.none(), "arguments": ARGUMENTS}
        ),
    },
)
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "tool", "", None, 5]),
        "content": TEXTS | st.none() | st.lists(TEXTS, max_size=2),
        "name": TEXTS | st.none(),
        "tool_call_id": TEXTS,
        "tool_calls": st.lists(CALLS, max_size=3) | st.none(),
        "reasoning": TEXTS,
    },
)


def in_the_long_way(message, monkeypatch) -> bytes:
    writer = MessageWriter(Source(LongStrings(), exact=True))
    with monkeypatch.context() as patched:
        patched.setattr(messages, "plain_message", lambda _: None)
        for _ in writer.conversation([message]):
            pass
    assert writer.writer.text_bytes + writer.writer.other_bytes >= len(writer.writer.data)
    return bytes(writer.writer.data)


@given(message=MESSAGES)
def test_both_ways_write_the_same(message):
    written = plain_message(message)
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert written in (None, in_the_long_way(message, monkeypatch))


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [CALL, CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
        {"role": "user", "name": "ann", "content": "é"},
    ],
)
def test_what_most_messages_are_goes_the_short_way(message):
    assert plain_message(message) is not None


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None, True, "x"]}, [], {}, {"é": {"b": []}}])
def test_the_form_of_a_value_is_its_json(value):
    assert orjson.loads(json_form(value)) == value


@given(value=st.dictionaries(TEXTS, VALUES, max_size=3))
def test_a_form_tells_values_apart(value):
    form = json_form(value)
    if form is not None:
        assert orjson.loads(form) == value


def test_marks_of_a_cache_have_no_part_in_a_form():
    schema = {"type": "object", "properties": {"cache_control": {"type": "string"}}}
    marked = {"a": {"cache_control": {"type": "ephemeral"}, "b": [schema]}}
    assert json_form(marked) == json_form({"a": {"b": [schema]}})
    assert b"cache_control" in json_form(schema)


def test_a_prompt_is_the_same_in_a_short_body_and_beside_what_makes_it_long():
    long = 'a "quoted" line\n' * 200
    tool = {"type": "function", "function": {"name": "f", "parameters": {"description": long}}}
    call = {"id": "c", "function": {"name": "f", "arguments": {"text": long, "n": 1}}}
    said = [
        {"role": "assistant", "content": long, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": long},
        {"role": "tool", "tool_call_id": "d", "content": "short"},
    ]
    last = {"role": "user", "content": "z" * LARGE_BYTES}
    first, second = (
        parse(
            json.dumps({"model": "m", "tools": [tool], "messages": given}).encode(),
            RequestKind.CHAT_COMPLETIONS,
            lambda _: 4.0,
        )
        for given in (said, [*said, last])
    )
    assert second.block_hashes[: len(first.block_hashes)] == first.block_hashes
    assert len(first.block_hashes) > 200
