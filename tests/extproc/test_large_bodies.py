"""Large and hostile bodies: what they cost is bounded, and honest ones are read as short ones are."""

from __future__ import annotations

import asyncio
import itertools
import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc_fakes import FakeRouters
from lodestar_extproc.extproc import long_strings
from lodestar_extproc.extproc.body_reading import InvalidRequest, OverBudget, read, reading
from lodestar_extproc.extproc.budget import (
    MAX_NESTING,
    MAX_OBJECT_BYTES,
    MAX_STEP_ITEMS,
    MAX_WORK_S,
    Limit,
)
from lodestar_extproc.extproc.events import Opening, RequestBody, RequestHeaders
from lodestar_extproc.extproc.exchange import Exchange
from lodestar_extproc.extproc.json_text import load
from lodestar_extproc.extproc.long_strings import LongStrings
from lodestar_extproc.extproc.work_in_steps import TURN_S, WorkInSteps
from lodestar_extproc.request import RequestKind

CHAT, COMPLETIONS = RequestKind.CHAT_COMPLETIONS, RequestKind.COMPLETIONS
MIB = 2**20


def parts(part: bytes, n_bytes: int) -> bytes:
    """A chat of one message whose parts are all *part*."""
    head, tail = b'{"model": "m", "messages": [{"role": "user", "content": [', b"0]}]}"
    return head + (part + b",") * (n_bytes // (len(part) + 1)) + tail


def text_of(n_bytes: int, letters: str = 'größe, "und" \\ 你好 \n') -> bytes:
    text = letters * (n_bytes // len(json.dumps(letters)) + 1)
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()


# -- budgets ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mib", [1, 4])
@pytest.mark.parametrize(
    "part",
    [
        b"{}",
        b"[]",
        b"0",
        b'{"a":1}',
        b'{"type":"text","text":"a"}',
        b'{"type":"image"}',
        b'"a"',
        b"[" * 90 + b"]" * 90,
        b'{"a":' * 60 + b"0" + b"}" * 60,
    ],
)
def test_tiny_things_in_masses_cost_little_memory(part, mib):
    """Four times its size and 20 MiB, of which three copies on the body's way to here are."""
    body = parts(part, mib * MIB)
    tracemalloc.start()
    try:
        read(body, CHAT)
    except OverBudget:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak <= len(body) + 20 * MIB


@pytest.mark.parametrize(
    ("body", "limit"),
    [
        (parts(b"{}", MAX_OBJECT_BYTES // 40), Limit.ITEMS),
        (b'{"prompt": [' + b"1," * 200_000 + b"1]}", Limit.ITEMS),
        (b'{"messages": [{"content": [{"x": [' + b"1," * MAX_STEP_ITEMS + b"1]}]}]}", Limit.ITEMS),
        (b'{"tools": [' + b"[" * 300 + b"]" * 300 + b"]}", Limit.NESTING),
        (
            b'{"tools": [{"a": ' + b"[" * 2 * MAX_NESTING + b"]" * 2 * MAX_NESTING + b"}]}",
            Limit.NESTING,
        ),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, Limit.NESTING),
        (b"[" * 50_000 + b"]" * 50_000, Limit.NESTING),
        (b'{"n": NaN, "prompt": "' + b"a " * MIB + b'"}', None),
        (b'{"prompt": [' + b'"%s",' % (b"a" * 500) * 5000 + b'""], "n": NaN}', Limit.BYTES),
    ],
)
def test_what_costs_too_much_says_what_it_is_beyond(body, limit):
    if limit is None:
        assert read(body, COMPLETIONS).text_bytes == 2 * MIB
        return
    with pytest.raises(OverBudget) as raised:
        read(body, CHAT if b"prompt" not in body else COMPLETIONS)
    assert raised.value.limit is limit


def test_commas_and_braces_of_texts_are_no_items():
    code = "f({a, b, c}, [1, 2, 3], {}, {}, {});" * 30_000
    assert read(text_of(MIB, code), CHAT).text_bytes > len(code)


# -- long strings -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [3 * MIB])
@pytest.mark.parametrize(
    "letters",
    ["plain text ", 'größe, "und" \\ 你好 \n', "\\", '"', "😀", 'a\\"😀', "\\u12 ", "é" * 7],
)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_long_text_is_read_in_pieces_as_in_one_go(letters, ascii_only, size, monkeypatch):
    text = letters * (size // len(json.dumps(letters, ensure_ascii=ascii_only)))
    said = {"model": "m", "messages": [{"role": "user", "content": text}]}
    body = json.dumps(said, ensure_ascii=ascii_only).encode()
    in_pieces = read(body, CHAT)
    monkeypatch.setattr("lodestar_extproc.extproc.body_reading.LARGE_BYTES", 2**30)
    assert in_pieces == read(body, CHAT)


@settings(max_examples=60)
@given(
    st.lists(st.text(alphabet='ab\\"é😀\n\udc00\ud83d', max_size=40), max_size=12),
    st.integers(13, 60).map(lambda n: 2 * n),
    st.booleans(),
)
def test_pieces_of_any_size_are_the_whole(texts, slice_bytes, ascii_only):
    body = json.dumps({"a": texts}, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lodestar_extproc.extproc.quotes.SLICE_BYTES", slice_bytes)
        patch.setattr(long_strings, "SLICE_BYTES", slice_bytes)
        patch.setattr(long_strings, "LONG_BYTES", 8)
        strings = LongStrings()
        steps = strings.part(body)
        try:
            while True:
                next(steps)
        except StopIteration as end:
            rest = load(end.value)
    found = [strings.find(text) for text in rest["a"]]
    whole = [
        text.encode("utf-8", "surrogatepass") if long is None else long.data
        for text, long in zip(rest["a"], found, strict=True)
    ]
    assert [_utf8(text, ascii_only=ascii_only) for text in texts] == whole


def _utf8(text: str, *, ascii_only: bool) -> bytes:
    """As JSON carries it: two escaped surrogates that make a pair are one character."""
    read_back = json.loads(json.dumps(text)) if ascii_only else text
    return read_back.encode("utf-8", "surrogatepass")


def test_an_image_is_the_same_in_a_short_body_and_in_a_long_one():
    def said(n_texts: int) -> bytes:
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 5000}}
        call = {"name": "f", "arguments": json.dumps({"text": "t " * 900, "n": 1})}
        first = {"role": "user", "content": [image, {"type": "text", "text": "word " * 500}]}
        called = {"role": "assistant", "tool_calls": [{"id": "1", "function": call}]}
        more = [{"role": "user", "content": "more " * 2000}] * n_texts
        return json.dumps({"model": "m", "messages": [first, called, *more]}).encode()

    short, long = read(said(0), CHAT), read(said(300), CHAT)
    assert long.n_media == short.n_media == 1
    assert list(long.block_hashes)[: len(short.block_hashes)] == list(short.block_hashes)


@pytest.mark.parametrize("mib", [1, 3, 6])
def test_texts_after_large_images_are_hashed(mib):
    def said(text: str):
        url = "data:image/png;base64," + "A" * (mib * MIB)
        parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
        return read(json.dumps({"messages": [{"role": "user", "content": parts}]}).encode(), CHAT)

    one, other = said("word " * 2000), said("word " * 1000 + "work " + "word " * 999)
    assert one.n_media == 1
    assert len(one.block_hashes) == (2304 + 10_000 + 7) // 64
    assert one.block_hashes[:100] == other.block_hashes[:100]
    assert one.block_hashes[-1] != other.block_hashes[-1]


def test_data_that_stands_as_text_counts_and_differs_to_its_end():
    def said(data: str):
        return read(json.dumps({"prompt": data}).encode(), COMPLETIONS)

    one, other = said("AbC9" * MIB), said("AbC9" * (MIB - 1) + "AbC8")
    assert one.n_media == 0
    assert one.text_bytes == 4 * MIB
    assert one.block_hashes != other.block_hashes


# -- steps --------------------------------------------------------------------------------------


def test_others_have_their_turn_between_the_steps_of_a_large_body():
    steps = sum(1 for _ in reading(text_of(4 * MIB), CHAT))
    assert steps > 50


async def test_work_gives_others_a_turn_and_is_ended_in_time():
    ticks = itertools.count()
    work = WorkInSteps(lambda: next(ticks) * TURN_S)
    ended: list[Limit] = []

    def endless():
        try:
            while True:
                yield
        except OverBudget as error:
            ended.append(error.limit)

    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while not ended:
            turns += 1
            await asyncio.sleep(0)

    await asyncio.gather(count_turns(), work.work(endless()))
    assert ended == [Limit.TIME]
    assert turns >= MAX_WORK_S / TURN_S / 4


async def test_short_work_does_not_wait_for_long_work():
    ticks = itertools.count()
    work, done = WorkInSteps(lambda: next(ticks) * TURN_S), []

    def steps(n: int):
        for _ in range(n):
            yield
        done.append(n)

    await asyncio.gather(work.work(steps(40)), work.work(steps(41)), work.work(steps(2)))
    assert done == [2, 40, 41]


HEADERS = {":method": "POST", ":path": "/v1/chat/completions", "content-length": "1"}


def routed(body: bytes, path: str = "/v1/chat/completions", routers=None):
    routers = routers or FakeRouters()
    exchange = Exchange(routers, Opening())
    exchange.receive(RequestHeaders(at_s=0.0, headers=HEADERS | {":path": path, "content-length": str(len(body))}))  # fmt: skip
    event = RequestBody(at_s=0.0, body=body, end_of_stream=True)
    if not exchange.done:
        if unread := exchange.unread(event):
            for _ in unread.steps():
                pass
        exchange.receive(event)
    return exchange, routers.routed


def test_a_large_body_is_read_before_its_turn_and_routed_by_what_it_says():
    exchange, (request,) = routed(text_of(3 * MIB))
    assert exchange.request.over_budget is None
    assert len(request.block_hashes) > 10_000


def test_a_body_over_budget_is_routed_by_its_size_and_counted():
    body = parts(b"{}", MIB)
    exchange, (request,) = routed(body)
    assert exchange.request.over_budget is Limit.ITEMS
    assert request.kind is RequestKind.UNKNOWN
    assert request.prompt_tokens == len(body) / 4


def test_what_is_heavy_on_a_path_that_nobody_knows_counts_by_its_size():
    _, (request,) = routed(b"x" * 8000, "/v3/novel")
    assert (request.kind, request.prompt_tokens) == (RequestKind.UNKNOWN, 2000)


@pytest.mark.parametrize(
    "path",
    [
        *("/tokenize", "/v1/files", "/v1/messages/count_tokens", "/v1/responses/input_tokens"),
        # A prompt that is rendered first and then sent as ids would count twice.
        *("/v1/chat/completions/render", "/v1/completions/render", "/v1/messages/render"),
        *("/v1/chat/completions/derender", "/apply-template"),
    ],
)
def test_what_computes_no_prompt_is_left_to_envoy(path):
    assert routed(b"x" * 8000, path)[1] == []
    assert routed(b"x" * 100, "/v3/novel")[1] == []


def test_a_pool_names_paths_of_its_own():
    routers = FakeRouters()
    object.__setattr__(routers.settings, "inference_paths", ("/ask",))
    _, (request,) = routed(
        b'{"messages": [{"role": "user", "content": "hello"}]}', "/v9/ask", routers
    )
    assert request.kind is RequestKind.INVOCATIONS


def test_a_path_names_the_model_that_a_body_does_not():
    path = "/openai/deployments/llama/chat/completions?api-version=1"
    _, (request,) = routed(b'{"messages": []}', path)
    assert request.model == "llama"


def test_a_large_body_that_is_no_json_is_not_read_twice():
    with pytest.raises((InvalidRequest, OverBudget)):
        read(b'{"a": "' + b"a" * 4 * MIB, CHAT)
