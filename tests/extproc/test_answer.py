"""First tokens, errors and usage, in answers cut anywhere."""

from __future__ import annotations

import itertools
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestar_extproc.completion import AnswerForm
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


def test_events_that_are_no_documents_end_prefill_and_are_no_first_token():
    reader = read(b"data: Hello\n\n")
    assert reader.prefill_is_over
    assert not reader.first_token
    assert reader.form is AnswerForm.FOREIGN
    assert not read(b"data: 5\n\n").first_token


@pytest.mark.parametrize(
    "text", [b"no healthy upstream", b"<html>", b"Internal Server Error", b"\0"]
)
def test_what_is_no_answer_has_no_first_token(text):
    assert not read(text * 3).first_token


@pytest.mark.parametrize(
    "body", [b'{"choices":[{"message":{"content":"a"}}]}', b'[{"text":"a"}]', b'  {"data": []}']
)
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
        assert reader.held_bytes <= 2 * MAX_DOCUMENT_BYTES
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
    assert reader.held_bytes == 0
    assert reader.form in AnswerForm


# -- framing ------------------------------------------------------------------------------------

FRAMED = b'{"choices":[{"delta":{"content":"a"}}]}'


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("colon", [b":", b": "])
def test_every_framing_of_the_standard_is_read_wherever_it_is_cut(end, mark, colon):
    lines = (b": hello", b"event: message", b"id: 7", b"retry: 10", b"data" + colon + FRAMED, b"")
    text = mark + end.join(lines) + end
    for size in (1, 2, 3, 7, len(text)):
        reader = read(*(text[i : i + size] for i in range(0, len(text), size)), end=False)
        assert reader.first_token, size
        assert reader.form is AnswerForm.STREAM


def test_a_carriage_return_ends_a_line_without_waiting_for_more():
    assert read(b"data: " + FRAMED + b"\r\r", end=False).first_token


# -- codings ------------------------------------------------------------------------------------

WHOLE = b"".join(
    (event(**chunk(role="assistant")), event(**chunk(content="Hi")), b"data: [DONE]\n\n")
)


def deflated(text: bytes, wbits: int) -> bytes:
    packer = zlib.compressobj(wbits=wbits)
    return packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH)


@pytest.mark.parametrize(
    ("wbits", "headers"),
    [
        (31, {}),
        (31, {"content-encoding": "gzip"}),
        (31, {"content-encoding": "X-GZIP"}),
        (15, {}),
        (15, {"content-encoding": "deflate"}),
        (-15, {"content-encoding": "deflate"}),
    ],
)
def test_deflated_answers_are_read_as_they_come(wbits, headers):
    packed = deflated(WHOLE, wbits)
    for size in (1, 5, len(packed)):
        reader = AnswerReader(headers)
        for i in range(0, len(packed), size):
            reader.feed(packed[i : i + size])
        assert reader.first_token
        assert reader.form_at_end is AnswerForm.STREAM


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"\x28\xb5\x2f\xfd\x04\x00", {}),  # zstd
        (b"\x1b\x2f\x00\xe0\x8d", {}),  # brotli
        (b"{\x8f\x01\x80", {}),
        (b"data: ", {"content-encoding": "br"}),
        (b"data: ", {"content-encoding": "gzip, br"}),
        (b"no gzip at all", {"content-encoding": "gzip"}),
        (b"ID3\x03", {"content-type": "audio/mpeg"}),
    ],
)
def test_any_byte_that_cannot_be_read_ends_prefill_and_is_no_first_token(body, headers):
    reader = AnswerReader(headers)
    reader.feed(body)
    assert reader.prefill_is_over
    assert not reader.first_token
    assert reader.form is AnswerForm.UNREADABLE


def test_a_bomb_is_not_inflated():
    packer = zlib.compressobj(wbits=31)
    bomb = packer.compress(bytes(64 * 2**20)) + packer.flush()
    reader = read(bomb, end=False)
    assert reader.form is AnswerForm.UNREADABLE
    assert reader.held_bytes <= MAX_DOCUMENT_BYTES


# -- ends and forms -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reason", ["abort", "error", "cancelled", "ABORTED", {"type": "abort"}, "x"]
)
@pytest.mark.parametrize("before", [b"", event(**chunk(content="Hi"))])
def test_an_end_that_is_no_models_own_is_a_failure(reason, before):
    ended = event(choices=[{"delta": {"content": ""}, "finish_reason": reason}])
    reader = read(before, ended, b"data: [DONE]\n\n")
    assert reader.failed
    assert reader.first_token == bool(before)


@pytest.mark.parametrize("nothing", ["null", "", "None", "not_finished"])
def test_a_word_for_no_reason_is_no_end(nothing):
    """DashScope and TensorRT-LLM write one into each event."""
    reader = read(
        event(choices=[{"delta": {"role": "assistant"}, "finish_reason": nothing}]), end=False
    )
    assert not reader.first_token
    reader.feed(event(choices=[{"delta": {"content": "Hi"}, "finish_reason": nothing}]))
    reader.feed(event(choices=[{"delta": {}, "finish_reason": "stop"}]))
    reader.finish()
    assert reader.first_token
    assert not reader.failed
    assert reader.form_at_end is AnswerForm.STREAM


@pytest.mark.parametrize(
    "reason",
    [
        *("stop", "length", "tool_calls", "content_filter", "repetition"),
        # Mistral's, Cohere's, Bedrock's and Gemini's, as gateways pass them on.
        *("model_length", "COMPLETE", "guardrail_intervened", "PROHIBITED_CONTENT"),
        "MALFORMED_FUNCTION_CALL",
        "load",  # Ollama's, where a model was asked for and no answer
    ],
)
def test_a_models_own_end_is_a_token(reason):
    reader = read(event(choices=[{"delta": {}, "finish_reason": reason, "stop_reason": 151643}]))
    assert reader.first_token
    assert not reader.failed


@pytest.mark.parametrize(
    "text",
    [
        b"event: error\ndata: {}\n\n",
        b"event:error\r\rdata: x",
        b"event: error\n\n",
        b"data: Error: out of memory\n\n",
        b'data: {"choices":[{"error":{"code":502},"delta":{"content":""}}]}\n\n',
        b'data: {"type":"response.incomplete","response":{"incomplete_details":{"reason":"dead"}}}\n\n',
        b'data: {"type":"message_delta","delta":{"stop_reason":"aborted"}}\n\n',
        b'{"type":"response","object":"response","id":"r","status":"failed","output":[]}',
        b'{"choices":[{"message":{"content":""},"finish_reason":"abort"}]}',
    ],
)
def test_a_failure_in_whatever_form_is_no_token(text):
    reader = read(text)
    assert reader.failed
    assert not reader.first_token


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (b"", AnswerForm.NOTHING),
        (b"data: [DONE]\n\n", AnswerForm.NOTHING),
        (b": ping\n\n", AnswerForm.NOTHING),
        (event(**NO_TOKENS["role"]) + b"data: [DONE]\n\n", AnswerForm.NOTHING),
        (b"<!doctype html><title>Welcome</title>", AnswerForm.FOREIGN),
        (b"OK", AnswerForm.FOREIGN),
        (b"i", AnswerForm.FOREIGN),
        (b"null", AnswerForm.FOREIGN),
        (b"{}", AnswerForm.FOREIGN),
        (b'{"detail":"Not Found"}', AnswerForm.FOREIGN),
        (b'{"code":500,"message":"boom"}', AnswerForm.FOREIGN),
        (b'{"statusCode":429,"message":"Too Many Requests"}', AnswerForm.FOREIGN),
        (b'data: {"code":1301,"message":"the queue is full"}\n\n', AnswerForm.NOTHING),
        (b'{"output_ids":[5],"meta_info":{"finish_reason":{"type":"stop"}}}', AnswerForm.ONE_PIECE),
        (b'{"message":{"role":"assistant","content":"a"},"done":true}', AnswerForm.ONE_PIECE),
        (b'{"choices":[]}', AnswerForm.FOREIGN),
        (b'{"choices":[{"message":{"content":"a"}}]}', AnswerForm.ONE_PIECE),
        (b'{"object":"list","data":[{"embedding":[1]}]}', AnswerForm.ONE_PIECE),
        (WHOLE, AnswerForm.STREAM),
        (event(**chunk(content="Hi")), AnswerForm.UNFINISHED),
        (b'{"response":"a","done":false}\n{"response":"","done":true}\n', AnswerForm.STREAM),
    ],
)
def test_what_a_whole_answer_was_is_told(text, form):
    assert read(text).form_at_end is form


@pytest.mark.parametrize(
    "seen",
    [
        chunk(content=[{"type": "text", "text": "a"}]),
        chunk(images=[{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]),
        chunk(audio={"id": "audio_1", "transcript": "a"}),
        chunk(thinking_blocks=[{"type": "thinking", "thinking": "a"}]),
        {"type": "response.output_item.added", "item": {"type": "function_call", "name": "f"}},
        {"type": "response.image_generation_call.partial_image", "partial_image_b64": "AA"},
        {"type": "response.refusal.delta", "delta": "No"},
        {"type": "response.output_text.done", "text": "all of it"},
        {"type": "content_block_start", "content_block": {"type": "redacted_thinking"}},
        {"type": "content_block_start", "content_block": {"type": "server_tool_use", "name": "s"}},
        {"type": "response.custom_tool_call_input.delta", "delta": "*** Begin Patch"},
        chunk(reasoning_details=[{"type": "reasoning.text", "text": "Hm", "index": 0}]),
        {"message": {"role": "assistant", "content": "", "thinking": "Hm"}, "done": False},
        {"type": "content-delta", "delta": {"message": {"content": {"text": "Hi"}}}},
        {"output_ids": [5], "meta_info": {"finish_reason": None}},
    ],
)
def test_whatever_a_user_would_see_is_a_token(seen):
    assert read(event(**seen), end=False).first_token


@pytest.mark.parametrize(
    "unseen",
    [
        chunk(audio={"id": "audio_1", "expires_at": 5}),
        chunk(role="assistant", content="", channel="analysis"),
        chunk(role="assistant", content="", refusal=None, annotations=[]),
        {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
        {"type": "keepalive", "sequence_number": 3},
        {"type": "codex.rate_limits", "rate_limits": {"primary": {"used_percent": 5}}},
        {"message": {"role": "assistant", "content": ""}, "done": False},
        {"message": "the queue is full", "code": 1301},
        chunk(content=[{"type": "text", "text": ""}]),
        {"type": "response.output_item.added", "item": {"type": "message", "content": []}},
        {"type": "response.in_progress", "response": {"status": "in_progress"}},
    ],
)
def test_what_a_user_would_not_see_is_none(unseen):
    assert not read(event(**unseen), end=False).first_token


# -- what is kept -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "kept"),
    [
        ({"id": "resp_1", "object": "response", "status": "queued"}, ("resp_1", "running")),
        ({"id": "resp_1", "object": "response", "status": "in_progress"}, ("resp_1", "running")),
        ({"id": "resp_1", "object": "response", "status": "completed"}, ("resp_1", "ended")),
        ({"id": "resp_1", "status": "cancelled"}, ("resp_1", "ended")),
        ({"id": "resp_1", "status": "queued"}, ("resp_1", "running")),
        ({"id": "resp_1", "object": "response.deleted", "deleted": True}, ("resp_1", "gone")),
        ({"id": "conv_1", "object": "conversation"}, ("conv_1", "ended")),
        (
            {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}},
            ("resp_1", "running"),
        ),
        ({"id": "call_1", "object": "tool"}, None),
        ({"id": 5, "object": "response"}, None),
        ({"object": "list", "data": []}, None),
        ({"response": "hello", "done": True}, None),
    ],
)
def test_an_answer_says_what_its_engine_keeps(document, kept):
    reader = AnswerReader()
    reader.feed(json.dumps(document).encode())
    reader.finish()
    assert reader.kept == kept


def test_a_promise_is_an_answer_and_no_first_token():
    reader = AnswerReader()
    reader.feed(b'{"id": "resp_1", "object": "response", "status": "queued", "output": []}')
    reader.finish()
    assert (reader.form_at_end, reader.prefill_is_over) == (AnswerForm.PROMISE, False)
