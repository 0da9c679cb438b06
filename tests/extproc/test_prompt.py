"""What a chat template sees is hashed, and nothing else; media are media wherever they stand."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestar_extproc.extproc.body import parse
from lodestar_extproc.extproc.body_reading import InvalidRequest
from lodestar_extproc.extproc.prompt import MAX_SEQUENCES
from lodestar_extproc.fleet.tokens_per_medium import DEFAULT_TOKENS
from lodestar_extproc.request import MAX_ANSWERS, RequestKind

CHAT, MESSAGES = RequestKind.CHAT_COMPLETIONS, RequestKind.MESSAGES
LONG = "tides and harbours " * 60
PICTURE = "iVBORw0KGgo" * 9000


def read(body: object, kind=CHAT):
    data = body if isinstance(body, bytes) else json.dumps({"model": "m"} | body).encode()
    return parse(data, kind, lambda _: 4.0)


def user(content) -> dict:
    return {"role": "user", "content": content}


def matched(first, second) -> int:
    """Blocks at the start that both have in common."""
    n = 0
    for a, b in zip(first.block_hashes, second.block_hashes, strict=False):
        if a != b:
            break
        n += 1
    return n


# -- equal prompts ------------------------------------------------------------------------------

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "number"}}}
FUNCTION = {"name": "look", "description": LONG, "parameters": SCHEMA}


def reversed_keys(value):
    return {key: value[key] for key in reversed(value)}


def billing(cch: str) -> dict:
    return {"type": "text", "text": f"x-anthropic-billing-header: cc_version=1; cch={cch};"}


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        (
            {"tools": [{"type": "function", "function": FUNCTION}]},
            {"tools": [{"function": reversed_keys(FUNCTION), "type": "function"}]},
            CHAT,
        ),
        (
            {"tools": [{"name": "f", "input_schema": SCHEMA}]},
            {"tools": [{"input_schema": SCHEMA, "cache_control": {"type": "ephemeral"}, "name": "f"}]},
            MESSAGES,
        ),
        ({"system": [billing("1"), {"type": "text", "text": LONG}]}, {"system": LONG}, MESSAGES),
        (
            {"system": [billing("1"), {"type": "text", "text": LONG}]},
            {"system": [billing("2"), {"type": "text", "text": LONG}]},
            MESSAGES,
        ),
        ({"system": [billing("1")]}, {}, MESSAGES),
        (
            {"messages": [{"role": "system", "content": [billing("1")]}, user(LONG)]},
            {"messages": [{"role": "system", "content": [billing("2")]}, user(LONG)]},
            MESSAGES,
        ),
        (
            {"messages": [{"role": "assistant", "reasoning": LONG, "content": "x"}]},
            {"messages": [{"content": "x", "reasoning_content": LONG, "role": "assistant"}]},
            CHAT,
        ),
        (
            {"messages": [user([{"type": "text", "text": LONG}, {"cachePoint": {"type": "default"}}])]},
            {"messages": [user(LONG)]},
            CHAT,
        ),
        (
            {"messages": [user([{"type": "a", "x": {"cache_control": {"type": "e"}, "y": 1}, "b": 2}])]},
            {"messages": [user([{"b": 2, "x": {"y": 1}, "type": "a"}])]},
            CHAT,
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": '{"a":  1}'}}]}]},
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {"arguments": '{"a":1}', "name": "f"}}]}]},
            CHAT,
        ),
    ],
)  # fmt: skip
def test_what_a_template_does_not_see_changes_no_hash(first, second, kind):
    rest = {"messages": [user(LONG)]}
    one, other = (read(rest | body | {"documents": [LONG]}, kind) for body in (first, second))
    assert one.block_hashes
    assert one.block_hashes == other.block_hashes
    assert one.prompt_tokens == other.prompt_tokens


def test_only_anthropics_messages_lose_their_billing_block():
    first, second = (
        read({"messages": [{"role": "system", "content": billing(c)["text"] + LONG}, user(LONG)]})
        for c in "12"
    )
    assert matched(first, second) == 0


def test_a_schema_may_have_a_property_that_is_called_like_a_marker():
    def tools(properties):
        schema = {"type": "object", "properties": properties}
        return {"tools": [{"name": "f", "parameters": schema}], "messages": [user(LONG)]}

    with_it = read(tools({"cache_control": {"type": "string"}}))
    assert with_it.block_hashes != read(tools({})).block_hashes


# -- different prompts --------------------------------------------------------------------------

TURN = [user(LONG), {"role": "assistant", "content": "ok"}, user(LONG)]


@pytest.mark.parametrize(
    "change",
    [
        {"documents": [{"title": "t", "text": "d"}]},
        {"tools": [{"type": "function", "function": FUNCTION}]},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"chat_template": "{{ messages }}"},
        {"reasoning_effort": "high"},
        {"cache_salt": "s"},
        {"model": "an-adapter"},
        {"lora_path": "an-adapter"},
        {"messages": [user(LONG), {"role": "assistant", "content": "ok", "reasoning": "r"}, user(LONG)]},
        {"messages": [user(LONG), {"role": "assistant", "content": "ok", "thinking": "r"}, user(LONG)]},
        {"messages": [user(LONG + "\n"), {"role": "assistant", "content": "ok"}, user(LONG)]},
        {"messages": [user(LONG), {"role": "tool", "content": "ok"}, user(LONG)]},
        {"messages": [user(LONG), {"role": "assistant", "content": "ok", "name": "n"}, user(LONG)]},
        {"messages": [user([{"type": "image_url", "image_url": {"url": "u"}}]), *TURN[1:]]},
    ],
)  # fmt: skip
def test_what_a_template_sees_makes_another_prompt(change):
    assert read({"messages": TURN}).block_hashes != read({"messages": TURN} | change).block_hashes


def test_the_order_inside_of_a_schema_is_seen():
    def tools(properties):
        return {"tools": [{"name": "f", "parameters": properties}], "messages": [user(LONG)]}

    order, other = read(tools(SCHEMA)), read(tools(reversed_keys(SCHEMA)))
    assert order.block_hashes != other.block_hashes


def test_long_integers_differ_in_their_last_digit():
    def part(n: str) -> bytes:
        body = '{"model": "m", "messages": [{"role": "user", "content": [{"n": %s}, "%s"]}]}'
        return (body % (n, LONG)).encode()

    n = "123456789012345678901234567890"
    assert read(part(n)).block_hashes == read(part(n)).block_hashes
    assert read(part(n)).block_hashes != read(part(n[:-1] + "1")).block_hashes


def test_replayed_reasoning_counts():
    said = [user("a"), {"role": "assistant", "content": "ok", "reasoning_content": "r" * 12_400}]
    assert read({"messages": said}).prompt_tokens == pytest.approx(3100, rel=0.01)


# -- media --------------------------------------------------------------------------------------

SOURCE = {"type": "base64", "media_type": "image/png", "data": PICTURE}
URL = f"data:image/png;base64,{PICTURE}"
IMAGE = {"type": "image_url", "image_url": {"url": URL}}
SHOT = {"type": "image", "source": SOURCE}


@pytest.mark.parametrize(
    ("content", "n_media"),
    [
        ([IMAGE, IMAGE], 2),
        ([{"type": "tool_result", "tool_use_id": "t", "content": [SHOT, SHOT]}], 2),
        ([{"type": "tool_result", "content": [{"type": "text", "text": "a"}, IMAGE]}], 1),
        ([{"type": "image_embeds", "image_embeds": PICTURE}], 1),
        ([{"type": "image_embeds", "image_embeds": {"pixels": PICTURE, "grid": [1, 2]}}], 1),
        ([{"type": "audio_embeds", "audio_embeds": PICTURE}], 1),
        ([{"type": "video", "video": [URL]}], 1),
        ([{"type": "video_url", "video_url": {"url": URL}}], 1),
        ([{"type": "input_audio", "input_audio": {"data": PICTURE, "format": "wav"}}], 1),
        ([{"type": "input_file", "file_data": URL, "filename": "a.pdf"}], 1),
        ([{"type": "document", "source": SOURCE}], 1),
        ([{"type": "new", "frames": [{"pixels": PICTURE}, {"pixels": PICTURE + "="}]}], 2),
        ([{"type": "new", "attachment": {"deep": [{"deeper": URL}]}}], 1),
        ([{"inlineData": {"mimeType": "image/png", "data": PICTURE}}], 1),
    ],
)
def test_media_are_media_wherever_they_stand(content, n_media):
    request = read({"messages": [user(content)]})
    assert request.n_media == n_media
    assert 0 <= request.prompt_tokens - n_media * DEFAULT_TOKENS < 60


@pytest.mark.parametrize(
    "content",
    [
        PICTURE,
        URL,
        [{"type": "text", "text": URL}],
        [{"type": "document", "source": {"type": "text", "data": PICTURE}}],
        [{"type": "tool_result", "content": PICTURE}],
    ],
)
def test_text_is_never_media(content):
    request = read({"messages": [user(content)]})
    assert request.n_media == 0
    assert request.prompt_tokens >= len(PICTURE) / 4


def test_another_screenshot_in_a_tools_result_is_another_prompt():
    def shot(data: str):
        result = {"type": "tool_result", "content": [{"type": "image", "source": SOURCE | {"data": data}}]}  # fmt: skip
        return read({"messages": [user([result, {"type": "text", "text": LONG}])]}, MESSAGES)

    first = shot(PICTURE)
    assert first.block_hashes == shot(PICTURE).block_hashes
    assert matched(first, shot(PICTURE + "A")) == 0


# -- what Python's json reads -------------------------------------------------------------------

PLAIN = json.dumps({"model": "m", "messages": [user(LONG)]})


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + PLAIN.encode(),
        PLAIN.encode("utf-16"),
        PLAIN.encode("utf-16-be"),
        PLAIN.encode("utf-32"),
        PLAIN.encode("utf-32-le"),
        PLAIN.replace('"m",', '"m", "temperature": NaN, "top_p": -Infinity,').encode(),
        PLAIN.replace('"m",', '"m", "seed": 123456789012345678901234567890,').encode(),
        PLAIN.replace('"m",', '"m", "stop": "\\ud800",').encode(),
        PLAIN.replace('"m",', '"other", "model": "m",').encode(),
        json.dumps(json.loads(PLAIN), indent=2).encode(),
        PLAIN.replace("tides", "\\u0074ides").encode(),
    ],
)
def test_whatever_pythons_json_reads_is_read(data):
    assert read(data).block_hashes == read(PLAIN.encode()).block_hashes


@pytest.mark.parametrize("more", ["", '"model": null, ', '"model": "", '])
def test_a_body_without_a_model_is_a_request(more):
    request = read(PLAIN.replace('"model": "m", ', more).encode())
    assert request.model == ""
    assert len(request.block_hashes) == len(read(PLAIN.encode()).block_hashes)


def test_lone_surrogates_are_text():
    request = read(b'{"model": "m\\ud800", "prompt": "' + b"\\udc00" * 100 + b'"}', RequestKind.COMPLETIONS)  # fmt: skip
    assert request.prompt_bytes == 300
    request.model.encode()


# -- other shapes -------------------------------------------------------------------------------


def test_a_batch_beyond_the_limit_is_cut_and_all_of_it_counts():
    prompts = ["0123456789abcdef" * 8] * (MAX_SEQUENCES + 100)
    request = read({"prompt": prompts}, RequestKind.COMPLETIONS)
    assert len(request.block_hashes) == 2 * MAX_SEQUENCES
    assert request.prompt_tokens == len(prompts) * 128 / 4


def test_a_query_is_computed_with_each_document():
    body = {"query": "q" * 400, "documents": ["d" * 800] * 10}
    assert read(body, RequestKind.RERANK).prompt_tokens == pytest.approx(3000, rel=0.02)


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"text": LONG}, len(LONG) / 4),
        ({"text_input": LONG}, len(LONG) / 4),
        ({"inputs": LONG, "parameters": {"max_new_tokens": 4}}, len(LONG) / 4),
        ({"input_ids": list(range(300))}, 300),
        ({"input_ids": [list(range(300)), [1, 2]]}, 302),
        ({"text": LONG, "image_data": [URL, URL]}, len(LONG) / 4 + 2 * DEFAULT_TOKENS),
    ],
)
def test_sglangs_and_tritons_own_shapes_are_read(body, tokens):
    for kind in (RequestKind.GENERATE, RequestKind.INVOCATIONS):
        assert read(body, kind).prompt_tokens == tokens


@pytest.mark.parametrize(
    ("instances", "tokens"),
    [
        ([{"text": LONG}, {"text": LONG}], 2 * len(LONG) / 4),
        ([{"prompt": LONG, "image": "a"}], len(LONG) / 4),
        ([{"input_ids": [1, 2, 3]}, {"input_ids": [4]}], 4),
    ],
)
def test_instances_of_vertex_ai_are_a_batch(instances, tokens):
    request = read(
        {"instances": instances, "parameters": {"max_new_tokens": 7}}, RequestKind.GENERATE
    )
    assert (request.prompt_tokens, request.max_output_tokens) == (tokens, 7)


def test_conversations_of_a_batch_are_each_a_prompt_with_the_tools():
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}] * 20
    one = read({"messages": [user(LONG)], "tools": tools})
    both = read({"messages": [[user(LONG)], [user(LONG)]], "tools": tools})
    assert both.prompt_tokens == 2 * one.prompt_tokens
    n_blocks = len(one.block_hashes)
    assert both.block_hashes[:n_blocks] == one.block_hashes
    # The first block of all tells the model, too.
    assert both.block_hashes[n_blocks + 1 :] == one.block_hashes[1:]


def test_conversations_beyond_the_limit_count_as_the_others():
    said = [[user("x" * 100)]] * (2 * MAX_SEQUENCES)
    one = read({"messages": said[0]})
    assert read({"messages": said}).prompt_tokens == len(said) * one.prompt_tokens


PHOTO = "iVBORw0KGgo" * 400


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "what is this?", "images": [PHOTO, PHOTO]}]},
        {"prompt": "what is this?", "images": [PHOTO, PHOTO]},
    ],
)
def test_images_beside_a_text_of_ollamas_are_media_and_no_text(body):
    request = read(body, RequestKind.OLLAMA)
    assert (request.n_media, request.text_bytes < 30) == (2, True)
    other = json.loads(json.dumps(body).replace("iVBOR", "iVBOS"))
    assert matched(request, read(other, RequestKind.OLLAMA)) < len(request.block_hashes)
    assert read(body, RequestKind.OLLAMA).block_hashes == request.block_hashes


@pytest.mark.parametrize(
    ("body", "streaming", "limit"),
    [
        ({"messages": [user(LONG)], "options": {"num_predict": 9}}, True, 9),
        ({"messages": [user(LONG)], "stream": False, "options": {"num_predict": -1}}, False, None),
        ({"prompt": LONG, "stream": None}, True, None),
        ({"prompt": LONG, "system": "s", "stream": "false"}, False, None),
    ],
)
def test_ollamas_requests_stream_unless_they_say_otherwise(body, streaming, limit):
    request = read(body, RequestKind.OLLAMA)
    assert (request.streaming, request.max_output_tokens) == (streaming, limit)
    assert request.prompt_tokens == pytest.approx(len(LONG) / 4, abs=3)


def test_llama_cpps_own_shapes_are_read():
    filled = {"input_prefix": LONG, "input_suffix": LONG, "prompt": "go", "n_predict": 5}
    request = read(filled, RequestKind.COMPLETIONS)
    assert request.prompt_tokens == pytest.approx(len(LONG) / 2, abs=1)
    assert request.max_output_tokens == 5
    assert read({"content": LONG}, RequestKind.EMBEDDINGS).prompt_tokens == len(LONG) / 4


@pytest.mark.parametrize(
    ("kind", "body", "n_answers"),
    [
        (CHAT, {"messages": TURN}, 1),
        (CHAT, {"messages": TURN, "n": 4}, 4),
        (CHAT, {"messages": [TURN, TURN, TURN], "n": "2"}, 6),
        (CHAT, {"messages": TURN, "n": 10**9}, MAX_ANSWERS),
        (CHAT, {"messages": TURN, "n": -1, "sampling_params": [1]}, 1),
        (RequestKind.COMPLETIONS, {"prompt": ["a", "b"], "n": 1, "best_of": 3}, 6),
        (RequestKind.COMPLETIONS, {"prompt": [[1, 2], [3]]}, 2),
        (RequestKind.GENERATE, {"text": "a", "sampling_params": {"n": 5}}, 5),
        (RequestKind.GENERATE, {"inputs": "a", "parameters": {"best_of": 2}}, 2),
        (RequestKind.EMBEDDINGS, {"input": ["a", "b"]}, 1),
        (RequestKind.RERANK, {"query": "a", "documents": ["b", "c"]}, 1),
    ],
)
def test_answers_that_are_generated_at_once_are_counted(kind, body, n_answers):
    assert read(body, kind).n_answers == n_answers


def test_tritons_streaming_path_streams():
    assert read({"text_input": "a"}, RequestKind.GENERATE_STREAM).streaming


def test_what_is_no_plain_text_teaches_no_bytes_a_token():
    assert read({"messages": TURN}).is_plain
    reasoned = [user(LONG), {"role": "assistant", "content": "ok", "reasoning": "r"}]
    assert not read({"messages": reasoned}).is_plain
    assert not read({"messages": TURN, "documents": [{"text": "d"}]}).is_plain
    assert not read({"prompt": [1, 2, 3]}, RequestKind.COMPLETIONS).is_plain


# -- properties ---------------------------------------------------------------------------------

WORDS = st.text(max_size=30)
PARTS = st.one_of(
    WORDS.map(lambda text: {"type": "text", "text": text}),
    WORDS.map(lambda url: {"type": "image_url", "image_url": {"url": f"u{url}"}}),
    WORDS.map(lambda text: {"type": "tool_result", "tool_use_id": "t", "content": text}),
    st.dictionaries(WORDS, WORDS | st.integers(), max_size=3).map(
        lambda d: {"type": "new", "x": d}
    ),
)
CHATS = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["user", "assistant", "tool"]),
            "content": WORDS | st.lists(PARTS),
        },
        optional={"reasoning": WORDS, "name": WORDS, "tool_call_id": WORDS},
    ),
    min_size=1,
    max_size=5,
)
MARK = {"cache_control": {"type": "ephemeral"}}
PAD = [user("pad " * 40)]


def shuffled(value, rng, *, inside=True):
    """The same value with its keys in another order and cache markers in it."""
    if isinstance(value, list):
        return [shuffled(each, rng) for each in value]
    if not isinstance(value, dict):
        return value
    keys = list(value)
    rng.shuffle(keys)
    changed = {key: shuffled(value[key], rng) for key in keys}
    return changed | MARK if "role" in value or "type" in value else changed


@settings(max_examples=150)
@given(CHATS, st.randoms(use_true_random=False), st.sampled_from([None, 1]))
def test_order_of_keys_whitespace_and_cache_markers_never_change_a_hash(chat, rng, indent):
    body = {"messages": [*chat, *PAD]}
    same = json.dumps(
        {"model": "m"} | shuffled(body, rng), indent=indent, ensure_ascii=bool(indent)
    )
    one, other = read(body), read(same.encode("utf-8", "surrogatepass"))
    assert one.block_hashes == other.block_hashes
    assert one.prompt_tokens == other.prompt_tokens


@settings(max_examples=150)
@given(CHATS, st.data())
def test_any_change_of_a_seen_text_changes_the_hash(chat, data):
    at = data.draw(st.integers(0, len(chat) - 1))
    changed = [dict(message) for message in chat]
    content = chat[at]["content"]
    more = [*content, {"type": "text", "text": "more"}]
    changed[at]["content"] = content + "more" if isinstance(content, str) else more
    one, other = read({"messages": [*chat, *PAD]}), read({"messages": [*changed, *PAD]})
    assert one.block_hashes != other.block_hashes


@settings(max_examples=100)
@given(CHATS, CHATS)
def test_a_longer_chat_goes_on_where_the_shorter_ends(chat, more):
    one, other = read({"messages": chat}), read({"messages": chat + more})
    assert matched(one, other) == len(one.block_hashes)


@pytest.mark.parametrize("prompt", [[1.5], [-1], ["a", 3]])
def test_what_no_engine_takes_for_tokens_is_refused(prompt):
    with pytest.raises(InvalidRequest):
        read({"prompt": prompt}, RequestKind.COMPLETIONS)
