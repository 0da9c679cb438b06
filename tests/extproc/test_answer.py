"""First tokens, errors and usage, in answers cut anywhere."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestar_extproc.extproc.answer import MAX_DOCUMENT_BYTES, AnswerReader
from lodestar_extproc.extproc.payload import NO_USAGE, Usage


def event(**fields) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def chunk(**delta) -> dict:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


def read(*chunks: bytes, end: bool = True) -> AnswerReader:
    reader = AnswerReader()
    for each in chunks:
        reader.feed(each)
    if end:
        reader.finish()
    return reader


TOKENS = {
    "chat content": chunk(content="Hi"),
    "reasoning, vLLM": chunk(reasoning="Hm"),
    "reasoning, DeepSeek": chunk(reasoning_content="Hm"),
    "refusal": chunk(refusal="No"),
    "tool call": chunk(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": ""}}]),
    "second choice": {
        "choices": [chunk(role="assistant")["choices"][0], {"delta": {"content": "a"}}]
    },
    "completion": {"choices": [{"text": "Hi"}]},
    "an end without text": {"choices": [{"delta": {}, "finish_reason": "stop"}]},
    "responses text": {"type": "response.output_text.delta", "delta": "Hi"},
    "responses reasoning": {"type": "response.reasoning_text.delta", "delta": "Hm"},
    "responses call": {"type": "response.function_call_arguments.delta", "delta": "{"},
    "responses end": {"type": "response.completed", "response": {}},
    "messages text": {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}},
    "messages thinking": {
        "type": "content_block_delta",
        "delta": {"type": "thinking_delta", "thinking": "a"},
    },
    "messages tool": {"type": "content_block_start", "content_block": {"type": "tool_use"}},
    "messages end": {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
}
NO_TOKENS = {
    "role": chunk(role="assistant", content=""),
    "nothing": chunk(),
    "usage": {"choices": [], "usage": {"prompt_tokens": 3}},
    "responses start": {"type": "response.created", "response": {}},
    "messages start": {"type": "message_start", "message": {"usage": {"input_tokens": 3}}},
    "messages ping": {"type": "ping"},
    "messages block": {"type": "content_block_start", "content_block": {"type": "text"}},
    "messages empty": {"type": "content_block_delta", "delta": {"type": "text_delta", "text": ""}},
    "unknown": {"hello": 1},
    "odd": {"choices": [3, {"delta": 4}], "type": 5},
}
ERRORS = {
    "vLLM": {"error": {"message": "engine is currently busy", "code": 503}},
    "object": {"object": "error", "message": "dead"},
    "responses": {"type": "response.failed", "response": {}},
    "messages": {"type": "error", "error": {"type": "overloaded_error"}},
}


@pytest.mark.parametrize("name", TOKENS)
def test_generated_content_is_a_first_token(name):
    assert read(event(**TOKENS[name]), end=False).first_token


@pytest.mark.parametrize("name", NO_TOKENS)
def test_what_is_not_generated_is_no_first_token(name):
    reader = read(event(**NO_TOKENS[name]), b"data: [DONE]\n\n")
    assert not reader.first_token
    assert not reader.failed


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("before", [b"", event(**chunk(content="Hi"))])
def test_an_error_is_a_failure_whenever_it_comes(name, before):
    assert read(before, event(**ERRORS[name]), end=False).failed
    assert not read(event(**ERRORS[name])).first_token


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_in_one_piece_is_a_failure(name):
    reader = read(json.dumps(ERRORS[name]).encode())
    assert reader.failed
    assert not reader.first_token


@pytest.mark.parametrize(
    "text",
    [
        b": keep-alive\n\n",
        b"event: ping\n\n",
        b"retry: 100\nid: 3\n\n",
        b"data:\n\n",
        b"data: [DONE]\n\n",
        b"\n\n\n",
        b"",
    ],
)
def test_comments_and_empty_events_are_no_first_token(text):
    assert not read(text).first_token
    assert read(text, event(**TOKENS["chat content"])).first_token


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_lines_may_end_either_way(end):
    data = b"event: x" + end[: len(end) // 2] + b"data:" + json.dumps(TOKENS["completion"]).encode()
    assert not read(data, end=False).first_token
    assert read(data + end, end=False).first_token


def test_an_event_may_have_several_lines():
    data = b'data: {"choices":\ndata: [{"text": "a"}]}\n\n'
    assert read(data, end=False).first_token


def test_a_last_event_needs_no_blank_line():
    assert read(b'data: {"choices":[{"text":"a"}]}').first_token


def test_events_in_an_unknown_format_are_content():
    assert read(b"data: Hello\n\n").first_token
    assert not read(b"data: 5\n\n").first_token


@pytest.mark.parametrize(
    "text", [b"no healthy upstream", b"<html>", b"Internal Server Error", b"\0"]
)
def test_what_is_no_answer_has_no_first_token(text):
    assert not read(text * 3).first_token


@pytest.mark.parametrize("body", [b'{"choices":[]}', b'[{"text":"a"}]', b'  {"data": []}'])
def test_a_whole_answer_has_its_first_token_at_its_end(body):
    assert not read(body, end=False).first_token
    assert read(body).first_token


@pytest.mark.parametrize("body", [b'{"choices":', b"{]", b"[" * 3000])
def test_a_broken_answer_has_none(body):
    assert not read(body).first_token


def usage(prompt, output, cached):
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ([{"usage": usage(7, 3, 5)}], Usage(7, 3, 5)),
        ([{"usage": {"prompt_tokens": 7, "prompt_tokens_details": None}}], Usage(7, None, None)),
        ([{"usage": usage(7, 1, 5)}, {"usage": usage(7, 2, 5)}], Usage(7, 2, 5)),
        (
            [
                {
                    "type": "response.completed",
                    "response": {
                        "usage": {
                            "input_tokens": 7,
                            "output_tokens": 3,
                            "input_tokens_details": {"cached_tokens": 5},
                        }
                    },
                }
            ],
            Usage(7, 3, 5),
        ),
        (
            [
                {
                    "type": "message_start",
                    "message": {
                        "usage": {
                            "input_tokens": 2,
                            "cache_read_input_tokens": 5,
                            "cache_creation_input_tokens": 1,
                            "output_tokens": 1,
                        }
                    },
                },
                {
                    "type": "message_delta",
                    "delta": {"stop_reason": "x"},
                    "usage": {"output_tokens": 9},
                },
            ],
            Usage(8, 9, 5),
        ),
        ([{"usage": None}], NO_USAGE),
        ([{"usage": usage(-1, "x", True)}], NO_USAGE),
        ([{"usage": [1]}], NO_USAGE),
    ],
)
def test_usage_is_read_from_every_api(documents, expected):
    assert read(*(event(**d) for d in documents)).usage == expected
    if len(documents) == 1:
        assert read(json.dumps(documents[0]).encode()).usage == expected


ANSWER = (
    b": keep-alive\r\n\r\n"
    + event(**NO_TOKENS["role"])
    + event(**chunk(content="Grüße"))
    + event(usage=usage(7, 3, 5), choices=[])
    + b"data: [DONE]\n\n"
)


@given(st.lists(st.integers(0, len(ANSWER)), max_size=8))
def test_cuts_change_nothing(cuts):
    edges = [0, *sorted(cuts), len(ANSWER)]
    parts = [ANSWER[a:b] for a, b in itertools.pairwise(edges)]
    reader = read(*parts)
    assert reader.first_token
    assert not reader.failed
    assert reader.usage == Usage(7, 3, 5)


def test_the_first_token_is_seen_with_its_last_byte_and_not_before():
    start = ANSWER.index(b"data: {", ANSWER.index(b"assistant"))
    end = ANSWER.index(b"\n\n", start) + 2
    reader = AnswerReader()
    for i in range(end):
        assert not reader.first_token, i
        reader.feed(ANSWER[i : i + 1])
    assert reader.first_token


@pytest.mark.parametrize(
    "piece",
    [
        b"data: " + b"x" * 5000,
        b"data: x\n" * 1000,
        b"data:\n" * 1000,
        b": " + b"x" * 5000,
        b"{" * 5000,
    ],
)
def test_memory_is_bounded(piece):
    reader = AnswerReader()
    for _ in range(3 * MAX_DOCUMENT_BYTES // len(piece)):
        reader.feed(piece)
        held = len(reader._buffer) + sum(map(len, reader._data)) + len(reader._data)
        assert held <= 2 * MAX_DOCUMENT_BYTES
    reader.finish()


def test_an_overlong_event_is_content_and_the_next_is_read():
    reader = read(b"data: " + b"x" * (2 * MAX_DOCUMENT_BYTES), end=False)
    reader.feed(b"\n\n" + event(usage=usage(7, 3, 5)))
    assert reader.first_token
    assert reader.usage == Usage(7, 3, 5)


@given(
    st.lists(
        st.binary(max_size=60) | st.sampled_from([b"data: ", b"\n", b"{", b'{"error":1}']),
        max_size=12,
    )
)
def test_any_bytes_are_an_answer(chunks):
    reader = read(*chunks)
    assert reader.first_token in (True, False)
    assert not reader._buffer
