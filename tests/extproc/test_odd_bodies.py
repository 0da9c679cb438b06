"""Bodies of clients of public issue trackers, thought of later: each with what makes it differ."""

from __future__ import annotations

import gzip
import json

import pytest

from lodestar_extproc.extproc.body import parse
from lodestar_extproc.extproc.body_reading import InvalidRequest
from lodestar_extproc.request import InferenceRequest, RequestKind

CHAT, RESPONSES = RequestKind.CHAT_COMPLETIONS, RequestKind.RESPONSES
LONG = "word " * 60
ASKED = {"role": "user", "content": LONG}


def read(body: object, kind: RequestKind = CHAT) -> InferenceRequest:
    return parse(json.dumps(body).encode(), kind, lambda _: 4.0)


def chat(*messages: object) -> InferenceRequest:
    return read({"model": "m", "messages": [*messages, ASKED]})


def responses(*items: object, **fields: object) -> InferenceRequest:
    return read({"model": "m", "input": [*items, ASKED], **fields}, RESPONSES)


def called(arguments: object) -> dict[str, object]:
    function = {"name": "f", "arguments": arguments}
    calls = [{"id": "c", "type": "function", "function": function}]
    return {"role": "assistant", "content": None, "tool_calls": calls}


@pytest.mark.parametrize("nothing", ["", None, {}])
def test_a_call_without_arguments_is_one_with_none(nothing):
    """VLLM makes `{}` of all of them (`_postprocess_messages`)."""
    assert chat(ASKED, called(nothing)).block_hashes == chat(ASKED, called("{}")).block_hashes
    odd = called(nothing) | {"of_no_template": 1}
    assert chat(ASKED, odd).block_hashes == chat(ASKED, called("{}")).block_hashes


ITEMS = {
    "a reference to a stored item": lambda x: {"type": "item_reference", "id": x},
    "a patch": lambda x: {"type": "apply_patch_call", "call_id": "c", "operation": {"diff": x}},
    "a call that failed": lambda x: {"type": "mcp_call", "name": "f", "output": None, "error": x},
    "a compacted past": lambda x: {"type": "compaction", "id": "c", "encrypted_content": x},
    "a tool of next year": lambda x: {"type": "new_call", "id": "n", "parts": [{"said": x}]},
    "commands": lambda x: {"type": "shell_call", "call_id": "c", "action": {"commands": [x]}},
    "a screenshot": lambda x: {
        "type": "computer_call_output",
        "output": {"type": "computer_screenshot", "image_url": f"data:image/png;base64,{x}"},
    },
}


@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS)
def test_items_of_the_responses_api_differ_by_all_that_a_model_may_see(item):
    assert responses(item("a")).block_hashes != responses(item("b")).block_hashes


def test_reasoning_that_only_its_maker_can_read_is_no_part_of_a_prompt():
    """Codex sends it back with each turn, encrypted anew."""

    def item(secret: str) -> dict[str, object]:
        return {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": secret}

    assert responses(item("A" * 900)).block_hashes == responses(item("B" * 900)).block_hashes
    assert responses(item("A" * 900)).n_media == 0


def test_the_effort_of_reasoning_is_part_of_a_prompt_and_what_is_told_of_it_is_not():
    """Templates of gpt-oss begin with it."""

    def asked(**reasoning: str) -> InferenceRequest:
        return responses(reasoning=reasoning)

    assert asked(effort="low").block_hashes != asked(effort="high").block_hashes
    assert asked(summary="auto").block_hashes == responses().block_hashes
    chats = [read({"messages": [ASKED], "reasoning_effort": e}) for e in ("low", "high")]
    assert chats[0].block_hashes != chats[1].block_hashes


def test_a_renewed_token_for_a_server_of_tools_is_no_other_prompt():
    def asked(token: str, server: str = "s") -> InferenceRequest:
        tool = {"type": "mcp", "server_label": server, "authorization": token}
        return responses(tools=[tool | {"headers": {"Authorization": token}}])

    assert asked("a").block_hashes == asked("b").block_hashes
    assert asked("a").block_hashes != asked("a", "other").block_hashes


def test_a_tool_that_is_no_server_may_have_a_parameter_called_headers():
    first, second = (
        responses(tools=[{"type": "function", "name": "f", "headers": x}]) for x in "ab"
    )
    assert first.block_hashes != second.block_hashes


def test_token_ids_may_be_written_as_floats():
    """As pydantic reads them; a Lua or R client has no other numbers."""
    kind = RequestKind.COMPLETIONS
    ids = list(range(40))
    floats = read({"prompt": [float(n) for n in ids]}, kind)
    assert floats.block_hashes == read({"prompt": ids}, kind).block_hashes
    assert read({"prompt": [1, 2.0, True]}, kind).prompt_tokens == 3
    with pytest.raises(InvalidRequest):
        read({"prompt": [1.5]}, kind)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (RequestKind.POOLING, {"data": {"data": "A" * 5000, "data_format": "url"}}),
        (RequestKind.INVOCATIONS, {"contents": [{"parts": [{"text": LONG * 20}]}]}),
        (RequestKind.EMBEDDINGS, {"texts": [LONG] * 20, "input_type": "search_query"}),
    ],
)
def test_what_says_nothing_that_we_know_is_a_load_of_its_own_length(kind, body):
    n_bytes = len(json.dumps(body))
    request = read(body, kind)
    assert request.prompt_tokens == n_bytes / 4
    assert not request.is_plain


def test_a_chat_that_has_not_begun_is_no_load():
    assert read({"model": "m", "messages": []}).prompt_tokens == 0


@pytest.mark.parametrize(
    "cut",
    [{"truncate_prompt_tokens": 512}, {"truncate_prompt_tokens": -1}, {"truncation": "auto"}],
)
def test_a_prompt_that_its_engine_may_cut_teaches_no_bytes_a_token(cut):
    """Its usage counts what was left."""
    assert read({"input": LONG}, RequestKind.EMBEDDINGS).is_plain
    assert not read({"input": LONG, **cut}, RequestKind.EMBEDDINGS).is_plain


def test_an_image_that_an_engine_has_already_is_known_by_its_uuid():
    """VLLM takes one without its data then (`multi_modal_uuids`)."""

    def asked(uuid: str) -> InferenceRequest:
        part = {"type": "image_url", "image_url": None, "uuid": uuid}
        return chat({"role": "user", "content": [part]})

    assert asked("a").block_hashes != asked("b").block_hashes
    assert asked("a").n_media == 1


def test_a_compressed_body_is_none_that_an_engine_reads():
    with pytest.raises(InvalidRequest):
        parse(gzip.compress(json.dumps({"messages": []}).encode()), CHAT, lambda _: 4.0)
