"""Bodies in, and the words and bytes of answers out."""

from __future__ import annotations

import orjson
import pytest

from lodestar_extproc.simulator.answer_format import AnswerFormat
from lodestar_extproc.simulator.api import InvalidCallError, parse_call


def parse(body, *, chat=True, longest_tokens=1000):
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return parse_call(raw, chat=chat, model="m", longest_tokens=longest_tokens)


def a_chat(*contents: str, **more):
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)]
    return {"model": "m", "messages": messages} | more


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"{", 400, None),
        (b"[]", 400, None),
        ({"messages": []}, 400, "model"),
        ({"model": 3, "messages": []}, 400, "model"),
        ({"model": "other", "messages": []}, 404, "model"),
        ({"model": "m"}, 400, "messages"),
        ({"model": "m", "messages": []}, 400, "messages"),
        ({"model": "m", "messages": ["hello"]}, 400, "messages"),
        (a_chat("x", max_tokens=0), 400, "max_tokens"),
        (a_chat("x", max_tokens="many"), 400, "max_tokens"),
        (a_chat("x", max_tokens=True), 400, "max_tokens"),
        (a_chat("x", max_tokens=2000), 400, "max_tokens"),
        (a_chat("x" * 5000), 400, "max_tokens"),
    ],
)
def test_a_bad_body_is_answered_as_openai_would(body, status, param):
    with pytest.raises(InvalidCallError) as caught:
        parse(body)
    error = orjson.loads(caught.value.body())["error"]
    assert (caught.value.status, error["code"], error["param"]) == (status, status, param)
    assert error["message"]


@pytest.mark.parametrize("prompt", [None, 3, {}, ["a", "b"], [1, "a"], [-1], [2**32]])
def test_a_bad_prompt_is_refused(prompt):
    with pytest.raises(InvalidCallError) as caught:
        parse({"model": "m", "prompt": prompt}, chat=False)
    assert caught.value.param == "prompt"


@pytest.mark.parametrize("prompt", [[7] * 37, [[7] * 37], "x" * 148, ["x" * 147]])
def test_token_lists_count_exactly_and_text_four_bytes_a_token(prompt):
    call = parse({"model": "m", "prompt": prompt, "max_tokens": 1}, chat=False)
    assert call.prompt_tokens == 37


def test_answers_have_the_length_asked_for():
    assert parse(a_chat("x")).max_tokens == 128
    assert parse(a_chat("x", max_tokens=7)).max_tokens == 7
    assert parse(a_chat("x", max_tokens=7, max_completion_tokens=9)).max_tokens == 9
    assert parse(a_chat("x"), longest_tokens=20).max_tokens < 20


def test_an_answer_depends_on_the_prompt_alone():
    call = parse(a_chat("one", max_tokens=20, stream=True))
    assert call.answer() == parse(a_chat("one", max_tokens=20, temperature=1)).answer()
    assert call.answer() != parse(a_chat("two", max_tokens=20)).answer()
    assert {len(word) for word in call.answer()} == {4}


def test_a_next_turn_continues_the_blocks_of_this_one_and_its_answer():
    call = parse(a_chat("hello " * 50, max_tokens=40))
    answer = call.answer()
    following = parse(a_chat("hello " * 50, "".join(answer), "and then?" * 20))
    ids, next_ids = call.block_ids(answer), following.block_ids([])
    assert len(ids) == (len(call.prompt) + 160) // 64
    assert next_ids[: len(ids)].tolist() == ids.tolist()


def test_tools_stand_before_the_conversation():
    def prompt(text, tools=None):
        return parse(a_chat(text, tools=tools)).prompt

    assert prompt("x", [{"type": "function"}]).startswith(b"<|tools|>")
    assert prompt("x", [{"type": "function"}]) != prompt("x")


def test_content_parts_read_as_their_text():
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    whole = parse({"model": "m", "messages": [{"role": "user", "content": parts}]})
    assert whole.prompt == parse(a_chat("hello")).prompt


@pytest.mark.parametrize("chat", [True, False])
def test_events_and_whole_answers_hold_the_same_text(chat):
    body = a_chat("x") | {"prompt": "x", "stream_options": {"include_usage": True}}
    call = parse(body, chat=chat)
    shape = AnswerFormat(call, "id", "m", 0)
    whole = orjson.loads(shape.whole("abc def ", 5))
    stream = shape.role() + shape.text("abc ") + shape.last("def ", 5)
    *events, done = [part.removeprefix(b"data: ") for part in stream.split(b"\n\n") if part]
    parsed = [orjson.loads(event) for event in events]
    choices = [event["choices"][0] for event in parsed if event["choices"]]
    text = "".join(c["delta"].get("content", "") if chat else c["text"] for c in choices)
    assert done == b"[DONE]"
    assert text == "abc def "
    assert choices[-1]["finish_reason"] == "length"
    assert whole["usage"] == parsed[-1]["usage"]
    assert whole["usage"]["prompt_tokens_details"] == {"cached_tokens": 5}
    one = whole["choices"][0]
    assert (one["message"]["content"] if chat else one["text"]) == "abc def "
