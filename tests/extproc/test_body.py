"""From bodies to requests: every API, every shape of a prompt, and what is not one."""

from __future__ import annotations

import json
import struct
from contextlib import suppress

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestar_extproc.extproc.body import parse, request_of, unparsed
from lodestar_extproc.extproc.body_reading import InvalidRequest, OverBudget
from lodestar_extproc.extproc.body_reading import read as read_body
from lodestar_extproc.extproc.paths import kind_of
from lodestar_extproc.extproc.scheduling_hints import NO_HINTS, SchedulingHints
from lodestar_extproc.fleet.tokens_per_medium import DEFAULT_TOKENS
from lodestar_extproc.request import BLOCK_BYTES, RequestKind

CHAT = RequestKind.CHAT_COMPLETIONS
LONG = "word " * 200


def read(kind: RequestKind = CHAT, hints=None, **fields):
    return parse(orjson.dumps({"model": "m"} | fields), kind, lambda _: 4.0, hints or NO_HINTS)


def user(content) -> dict:
    return {"role": "user", "content": content}


def shared_blocks(first, second) -> int:
    """Blocks at the start that both requests have in common."""
    pairs = zip(first.block_hashes, second.block_hashes, strict=False)
    return next(
        (i for i, (a, b) in enumerate(pairs) if a != b),
        min(len(first.block_hashes), len(second.block_hashes)),
    )


# -- paths --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/chat/completions/", CHAT),
        ("/v1/chat/completions?a=/v1/models", CHAT),
        ("/tenant/v1/completions", RequestKind.COMPLETIONS),
        ("/v1/responses", RequestKind.RESPONSES),
        ("/v1/embeddings", RequestKind.EMBEDDINGS),
        ("/v1/messages", RequestKind.MESSAGES),
        ("/v1/messages/count_tokens", None),
        ("/v1/responses/resp_1/cancel", None),
        ("/chat/completions", CHAT),
        ("/api/v3/chat/completions", CHAT),
        ("/openai/deployments/m/chat/completions?api-version=1", CHAT),
        ("/rerank", RequestKind.RERANK),
        ("/v2/rerank", RequestKind.RERANK),
        ("/score", RequestKind.SCORE),
        ("/pooling", RequestKind.POOLING),
        ("/classify", RequestKind.CLASSIFY),
        ("/generate", RequestKind.GENERATE),
        ("/inference/v1/generate", RequestKind.GENERATE),
        ("/vertex_generate", RequestKind.GENERATE),
        ("/v1/chat/completions/batch", CHAT),
        ("/generative_scoring", RequestKind.SCORE),
        ("/api/chat", RequestKind.OLLAMA),
        ("/api/generate", RequestKind.OLLAMA),
        ("/completion", RequestKind.COMPLETIONS),
        ("/infill", RequestKind.COMPLETIONS),
        ("/v1/chat/completions/render", None),
        ("/v1/completions/derender", None),
        ("/v2/models/m/generate_stream", RequestKind.GENERATE_STREAM),
        ("/invocations", RequestKind.INVOCATIONS),
        ("/v1/audio/transcriptions", RequestKind.UNKNOWN),
        ("/v1/threads/t/messages", None),
        ("/v1/completions_of_others", None),
        ("/tokenize", None),
        ("", None),
    ],
)
def test_a_path_tells_the_api(path, kind):
    assert kind_of("POST", path) is kind
    assert kind_of("GET", path) is None


# -- prompts ------------------------------------------------------------------------------------


def test_a_string_prompt_is_its_bytes():
    request = read(RequestKind.COMPLETIONS, prompt="ü" * 100)
    assert request.prompt_bytes == 200
    assert request.prompt_tokens == 50
    assert len(request.block_hashes) == 200 // BLOCK_BYTES


def test_token_ids_are_counted_exactly():
    tokens = list(range(160))
    request = read(RequestKind.COMPLETIONS, prompt=tokens)
    assert request.prompt_tokens == 160
    assert request.prompt_bytes == 640
    assert request.tokens_per_block == 16
    longer = read(RequestKind.COMPLETIONS, prompt=[*tokens, 1, 2, 3])
    assert shared_blocks(request, longer) == 10


@pytest.mark.parametrize("kind", [RequestKind.COMPLETIONS, RequestKind.EMBEDDINGS])
@pytest.mark.parametrize("given_prompts", [[LONG, LONG], [list(range(100)), list(range(100))]])
def test_a_batch_is_all_its_prompts(kind, given_prompts):
    field = "prompt" if kind is RequestKind.COMPLETIONS else "input"
    one, both = read(kind, **{field: given_prompts[0]}), read(kind, **{field: given_prompts})
    assert both.prompt_tokens == 2 * one.prompt_tokens
    n_blocks = len(one.block_hashes)
    assert both.block_hashes[:n_blocks] == one.block_hashes
    assert both.block_hashes[n_blocks + 1 :] == one.block_hashes[1:]  # the first tells the model


@pytest.mark.parametrize("prompt", [[-1], [2**32], [1.5], ["a", 3], [None], [[1, "a"]], [{}]])
def test_what_is_no_token_is_invalid(prompt):
    with pytest.raises(InvalidRequest, match="token ids"):
        read(RequestKind.COMPLETIONS, prompt=prompt)


@pytest.mark.parametrize("prompt", [None, [], 3, {}, True])
def test_no_readable_prompt_is_an_empty_one(prompt):
    request = read(RequestKind.COMPLETIONS, prompt=prompt)
    assert request.prompt_tokens == 0
    assert request.block_hashes == ()


TURN = [{"role": "system", "content": LONG}, user(LONG)]
NEXT_TURN = [*TURN, {"role": "assistant", "content": LONG}, user("and now?")]
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOLS = [{"type": "function", "function": {"name": "f", "description": LONG}}]


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        (CHAT, {"messages": TURN}, {"messages": NEXT_TURN}),
        (CHAT, {"tools": TOOLS, "messages": TURN}, {"messages": NEXT_TURN, "tools": TOOLS}),
        (
            CHAT,
            {"messages": TURN},
            {
                "messages": [
                    *TURN,
                    {"role": "assistant", "content": None, "tool_calls": [CALL]},
                    {"role": "tool", "tool_call_id": "1", "content": "42"},
                ]
            },
        ),
        (
            RequestKind.MESSAGES,
            {"system": LONG, "messages": TURN[1:]},
            {"system": LONG, "messages": NEXT_TURN[1:]},
        ),
        (
            RequestKind.RESPONSES,
            {"instructions": LONG, "input": LONG},
            {"instructions": LONG, "input": [user(LONG), user("and now?")]},
        ),
    ],
)
def test_the_next_turn_continues_this_one(kind, first, second):
    this, following = read(kind, **first), read(kind, **second)
    assert len(this.block_hashes) >= 30
    assert shared_blocks(this, following) == len(this.block_hashes)
    assert following.prompt_bytes > this.prompt_bytes


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"model": "m"}, {"model": "a-lora-of-m"}),
        ({}, {"cache_salt": "tenant 2"}),
        ({}, {"tools": TOOLS}),
    ],
)
def test_what_engines_do_not_share_shares_no_block(first, second):
    assert shared_blocks(read(messages=TURN, **first), read(messages=TURN, **second)) == 0


def test_a_role_is_part_of_the_prompt():
    other = [{"role": "developer", "content": LONG}, user(LONG)]
    assert shared_blocks(read(messages=TURN), read(messages=other)) == 0


def test_text_parts_are_the_text():
    parts = [{"type": "text", "text": LONG}]
    marked = [{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}]
    assert read(messages=[user(parts)]) == read(messages=[user(LONG)])
    assert read(messages=[user(marked)]) == read(messages=[user(LONG)])


def image(url: str) -> dict:
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.mark.parametrize(
    "part",
    [
        image("data:image/png;base64," + "A" * 400_000),
        {"type": "input_image", "image_url": "https://example.org/" + "a" * 4000},
        {"type": "image", "source": {"type": "base64", "data": "A" * 400_000}},
        {"type": "input_audio", "input_audio": {"data": "A" * 400_000, "format": "wav"}},
        {"type": "file", "file": {"file_id": "f-1"}},
        {"type": "image_url"},
    ],
)
def test_media_count_as_tokens_not_as_text(part):
    bare = read(messages=[user("")])
    request = read(messages=[user([part])])
    assert request.prompt_tokens - bare.prompt_tokens == DEFAULT_TOKENS


def test_different_images_are_different_prompts():
    first, same, other = (
        read(messages=[user([image(url), {"type": "text", "text": LONG}])]) for url in "aab"
    )
    assert first.block_hashes == same.block_hashes
    assert shared_blocks(first, other) == 0


def test_tool_results_and_unknown_parts_count():
    result = {
        "type": "tool_result",
        "tool_use_id": "1",
        "content": [{"type": "text", "text": LONG}],
    }
    unknown = {"type": "hologram", "payload": LONG}
    assert read(RequestKind.MESSAGES, messages=[user([result])]).prompt_bytes > len(LONG)
    assert read(messages=[user([unknown])]).prompt_bytes > len(LONG)


# -- the rest of a request ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 7, "max_tokens": 5}, 7),
        ({"max_output_tokens": 9}, 9),
        ({"max_tokens": 0}, None),
        ({"max_tokens": "5"}, 5),
        ({"max_tokens": 5.0}, 5),
        ({"max_tokens": 5.5}, None),
        ({"sampling_params": {"max_new_tokens": 6}}, 6),
        ({"max_tokens": True}, None),
        ({}, None),
    ],
)
def test_the_output_limit_is_the_clients(fields, limit):
    assert read(**fields).max_output_tokens == limit


@pytest.mark.parametrize(
    ("stream", "streaming"),
    [
        *((value, True) for value in (True, 1, 1.0, "true", "True", "1", "t", "YES", "y", "on")),
        *((value, False) for value in (False, None, 0, 2, "false", "", "no", "off", [1], {})),
    ],
)
def test_what_pydantic_takes_for_true_streams(stream, streaming):
    assert read(stream=stream).streaming is streaming


def test_what_the_headers_ask_for_is_kept_even_of_a_body_that_cannot_be_read():
    hints = SchedulingHints(ttft_slo_s=0.25, tpot_slo_s=0.05, priority=-1, session="a")
    for request in (read(hints=hints), unparsed(0, 4.0, hints)):
        assert (request.ttft_slo_s, request.tpot_slo_s) == (0.25, 0.05)
        assert request.is_sheddable
        assert request.session is not None


# -- sessions -----------------------------------------------------------------------------------

CONVERSATION = {"conversation": "c", "user": "u"}


@pytest.mark.parametrize(
    ("fields", "same"),
    [
        ({"user": "u"}, {"user": "u"}),
        ({"conversation": "c"}, {"conversation": {"id": "c"}}),
        (CONVERSATION, {"conversation": "c", "user": "other"}),
        ({"prompt_cache_key": "k"}, {"prompt_cache_key": "k"}),
        ({"session_id": "s"}, {"session_id": "s"} | CONVERSATION),
        (
            {"metadata": {"user_id": "u_session_1"}},
            {"metadata": {"user_id": "u_session_1"}, "user": "u"},
        ),
        ({"metadata": {"sessionId": "s", "promptId": "1"}}, {"metadata": {"sessionId": "s"}}),
        ({"safety_identifier": "u"}, {"safety_identifier": "u", "metadata": {"a": "b"}}),
    ],
)
def test_a_session_is_known_by_the_narrowest_field_that_names_one(fields, same):
    session = read(**fields).session
    assert session == read(**same).session != read(user="another").session


def test_the_header_names_the_session_before_any_field():
    hints = SchedulingHints(session="a")
    assert read(hints=hints).session == read(hints=hints, user="u").session != read().session


@pytest.mark.parametrize("fields", [{}, {"user": 3}, {"user": ""}, {"conversation": ["c"]}])
def test_what_names_no_session_has_none(fields):
    assert read(**fields).session is None


# -- another model ------------------------------------------------------------------------------


def test_a_rewritten_model_is_hashed_as_what_the_engine_is_asked_for():
    body = orjson.dumps({"model": "a", "messages": [user("x" * 500)]})
    rewritten = parse(body, CHAT, lambda _: 4.0, target_of=lambda _: "b")
    asked = parse(body.replace(b'"a"', b'"b"'), CHAT, lambda _: 4.0)
    assert (rewritten.model, rewritten.named_model) == ("b", "a")
    assert rewritten.block_hashes == asked.block_hashes
    assert asked.named_model is None


# -- what is no request -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"model": "m", "n": 1' + b"0" * 5000 + b"}", "not JSON"),
        (b'{"model": "m", "n": nan}', "not JSON"),
        (b"[]", "JSON object"),
        (b'"text"', "JSON object"),
        (b"null", "JSON object"),
        (b'{"model": ["m"]}', "model must be a text"),
        (b'{"model": 3}', "model must be a text"),
    ],
)
def test_what_is_no_request_is_refused_with_its_reason(data, reason):
    with pytest.raises(InvalidRequest, match=reason):
        parse(data, CHAT, lambda _: 4.0)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "type", "text", "image_url", "url", "source", "tool_calls", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
FIELDS = st.dictionaries(
    st.sampled_from(
        [
            "messages",
            "prompt",
            "input",
            "system",
            "instructions",
            "tools",
            "functions",
            "stream",
            "max_tokens",
            "cache_salt",
        ]
    ),
    JSON,
)


@settings(max_examples=300)
@given(FIELDS, st.sampled_from(list(RequestKind)))
def test_any_json_is_a_request_or_invalid(fields, kind):
    data = json.dumps({"model": "m"} | fields).encode()
    try:
        request = parse(data, kind, lambda _: 3.0)
    except (InvalidRequest, OverBudget):
        return
    assert request.prompt_tokens >= 0
    assert len(request.block_hashes) <= request.prompt_bytes // BLOCK_BYTES
    assert parse(data, kind, lambda _: 3.0) == request


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_invalid(data):
    with suppress(InvalidRequest, OverBudget):
        parse(data, RequestKind.UNKNOWN, lambda _: 4.0)


def test_token_ids_are_little_endian():
    request = read(RequestKind.COMPLETIONS, prompt=[1] * 16)
    text = struct.pack("<16I", *[1] * 16).decode()
    assert request.block_hashes == read(RequestKind.COMPLETIONS, prompt=text).block_hashes


def test_a_body_without_a_model_is_a_prompt_of_the_only_one():
    named = json.dumps({"model": "m", "prompt": "x" * 400}).encode()
    unnamed = json.dumps({"prompt": "x" * 400}).encode()
    kind = RequestKind.COMPLETIONS

    def request(body, **changes):
        return request_of(read_body(body, kind), kind, lambda m: {"m": 2.0}.get(m, 4.0), **changes)

    assert request(unnamed, only_model="m") == request(named)
    assert request(unnamed).prompt_tokens == 100
    # The engine is still asked for what it takes by itself.
    assert request(unnamed, only_model="m").named_model is None
    assert request(named, only_model="n").model == "m"
