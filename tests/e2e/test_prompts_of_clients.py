"""What a request is, through a real Envoy: bodies from public reports, with the right value of each."""

from __future__ import annotations

import asyncio
import gzip
import json
import resource

import pytest
import pytest_asyncio

from engine_stack import engine_stack
from lodestar_extproc.decision import Reason
from lodestar_extproc.fleet.engine_metrics import parse
from lodestar_extproc.fleet.health import HealthState
from lodestar_extproc.fleet.tokens_per_medium import DEFAULT_TOKENS
from lodestar_extproc.request import RequestKind
from scripted_engine import ScriptedEngine, good, in_one_piece, with_usage

pytestmark = [pytest.mark.truth, pytest.mark.asyncio(loop_scope="module")]

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
LONG = "the grey heron stands in the reeds and counts each passing boat aloud. " * 300
"""About 5,300 tokens at 4 bytes each."""
TOKENS = len(LONG) / 4
SHORT = LONG[:3200]
PICTURE = "iVBORw0KGgoAAAANSUhEUgAA" * 16_000
"""A screenshot of 384 kB in base64."""


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[False, True])
async def any_stack(request, tmp_path_factory):
    folder, engines = tmp_path_factory.mktemp("envoy"), [ScriptedEngine(in_one_piece(0.002))]
    async with engine_stack(folder, engines, strict=request.param) as running:
        yield running


@pytest.fixture
def stack(any_stack):
    """Strict or not, with nothing remembered of earlier tests."""
    any_stack.reset()
    return any_stack


def user(content) -> dict:
    return {"role": "user", "content": content}


def body(*messages, **fields) -> bytes:
    return json.dumps({"model": "m", "max_tokens": 8, "messages": list(messages)} | fields).encode()


async def counted(stack, path: str, *bodies: bytes, **headers: str) -> tuple[float, float]:
    """Prompt tokens of the last of *bodies*, and those that the ones before have left cached."""
    for each in bodies:
        decision = await stack.decided(path, each, **headers)
    request = decision.candidates.request
    return request.prompt_tokens, float(decision.candidates.matched_tokens[0])


# -- equal prompts, other bytes -------------------------------------------------------------------


def claude_turn(cch: str, *more) -> bytes:
    """A coding agent's request, with a block of billing that changes each time."""
    head = f"x-anthropic-billing-header: cc_version=2.1.7.{cch}; cc_entrypoint=cli; cch={cch};"
    system = [
        {"type": "text", "text": head},
        {"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}},
    ]
    tool = {"name": "ls", "description": SHORT, "input_schema": {"type": "object"}}
    return body(user([{"type": "text", "text": "List it."}]), *more, system=system, tools=[tool])


async def test_a_billing_block_that_changes_hides_no_conversation(stack):
    use = {"type": "tool_use", "id": "t1", "name": "ls", "input": {"p": "."}}
    result = {
        "type": "tool_result",
        "tool_use_id": "t1",
        "content": "a b c",
        "cache_control": {"type": "ephemeral"},
    }
    turn = claude_turn("9f8e7", {"role": "assistant", "content": [use]}, user([result]))
    tokens, matched = await counted(stack, MESSAGES, claude_turn("1a2b3"), turn)
    assert tokens == pytest.approx(TOKENS + len(SHORT) / 4, rel=0.03)
    assert matched > tokens - 60


async def test_keys_of_a_tool_in_another_order_are_the_same_prompt(stack):
    function = {"name": "f", "description": SHORT, "parameters": {"type": "object"}}
    turned = dict(reversed(function.items()))
    tokens, matched = await counted(
        stack,
        CHAT,
        body(user(LONG), tools=[{"type": "function", "function": function}]),
        body(user(LONG), tools=[{"function": turned, "type": "function"}]),
    )
    assert matched > tokens - 20


async def test_order_inside_of_a_schema_is_part_of_the_prompt(stack):
    def tools(*names):
        properties = {name: {"type": "string", "description": SHORT} for name in names}
        schema = {"type": "object", "properties": properties}
        return [{"type": "function", "function": {"name": "f", "parameters": schema}}]

    _, matched = await counted(
        stack,
        CHAT,
        body(user(LONG), tools=tools("a", "b")),
        body(user(LONG), tools=tools("b", "a")),
    )
    assert matched < 100


async def test_blanks_between_values_and_escapes_in_them_are_no_part_of_the_prompt(stack):
    said = user("é" * 800 + LONG)
    one = body(said)
    other = json.dumps(json.loads(one), ensure_ascii=False, indent=3).encode()
    tokens, matched = await counted(stack, CHAT, one, other)
    assert matched > tokens - 20


# -- what counts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_replayed_reasoning_is_counted_and_told_apart(stack, field):
    def history(thought: str) -> bytes:
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        answer = {"role": "assistant", "content": "ok", field: thought, "tool_calls": [call]}
        return body(user("a"), answer, {"role": "tool", "tool_call_id": "c", "content": "42"})

    tokens, matched = await counted(stack, CHAT, history(LONG), history(LONG))
    assert tokens == pytest.approx(TOKENS, rel=0.02)
    assert matched > tokens - 20
    _, matched = await counted(stack, CHAT, history("other " + LONG))
    assert matched == 0


async def test_documents_of_a_template_are_counted(stack):
    documents = [{"title": f"{i}", "text": SHORT} for i in range(4)]
    tokens, _ = await counted(stack, CHAT, body(user("and?"), documents=documents))
    assert tokens == pytest.approx(len(SHORT), rel=0.05)


SCREENSHOT = {"type": "base64", "media_type": "image/png", "data": PICTURE}
MEDIA = {
    "a tool's result": (
        MESSAGES,
        {
            "type": "tool_result",
            "tool_use_id": "t",
            "content": [{"type": "image", "source": SCREENSHOT}],
        },
    ),
    "an image by URL": (
        CHAT,
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}},
    ),
    "an image's embedding": (CHAT, {"type": "image_embeds", "image_embeds": PICTURE}),
    "a sound": (CHAT, {"type": "input_audio", "input_audio": {"data": PICTURE, "format": "wav"}}),
    "a sound's embedding": (CHAT, {"type": "audio_embeds", "audio_embeds": PICTURE}),
    "a video": (
        CHAT,
        {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{PICTURE}"}},
    ),
}


@pytest.mark.parametrize("where", MEDIA)
async def test_media_count_as_media_wherever_they_stand(stack, where):
    path, part = MEDIA[where]
    tokens, _ = await counted(stack, path, body(user("look"), user([part])))
    assert tokens == pytest.approx(DEFAULT_TOKENS, abs=30)


async def test_media_and_reasoning_bend_no_other_prompt(tmp_path):
    engine = ScriptedEngine(with_usage(3000))
    async with engine_stack(tmp_path, [engine], observed_ratio=1.0) as stack:
        thought = {"role": "assistant", "content": "ok", "reasoning_content": LONG}
        for _ in range(15):
            await stack.decided(CHAT, body(user([MEDIA["an image by URL"][1]])))
            await stack.decided(CHAT, body(user("a"), thought, user("b")))
        tokens, _ = await counted(stack, CHAT, body(user(LONG)))
        assert tokens == pytest.approx(TOKENS, rel=0.02)
        # Plain text does teach: here two bytes a token.
        engine.script = with_usage(len(LONG) // 2)
        for _ in range(40):
            await stack.decided(CHAT, body(user(LONG)))
        tokens, _ = await counted(stack, CHAT, body(user(LONG)))
        assert tokens == pytest.approx(len(LONG) / 2, rel=0.02)


# -- bodies that engines read ---------------------------------------------------------------------

PLAIN = body(user(LONG))
UNNAMED = json.dumps({"messages": [user(LONG)]}).encode()
READ_BY_ENGINES = {
    "a byte order mark": b"\xef\xbb\xbf" + PLAIN,
    "UTF-16": PLAIN.decode().encode("utf-16"),
    "UTF-32, little-endian": PLAIN.decode().encode("utf-32-le"),
    "NaN and infinity": PLAIN[:-1] + b', "temperature": NaN, "top_p": -Infinity}',
    "a lone surrogate": PLAIN[:-1] + b', "user": "\\ud800"}',
    "a key twice": b'{"messages": [], ' + PLAIN[1:],
    "large integers": PLAIN[:-1] + b', "seed": 123456789012345678901234567890}',
}


@pytest.mark.parametrize("what", READ_BY_ENGINES)
async def test_whatever_an_engine_reads_is_read(stack, what):
    tokens, matched = await counted(stack, CHAT, PLAIN, READ_BY_ENGINES[what])
    assert tokens == pytest.approx(TOKENS, rel=0.01)
    assert matched > tokens - 20


@pytest.mark.parametrize("unnamed", [UNNAMED, UNNAMED[:-1] + b', "model": null}'])
async def test_a_body_without_a_model_is_for_the_only_one(stack, unnamed):
    named = body(user(LONG))
    tokens, matched = await counted(stack, CHAT, named, named, unnamed)
    assert tokens == pytest.approx(TOKENS, rel=0.01)
    assert matched > tokens - 20


@pytest.mark.parametrize("stream", ["true", "True", 1, "yes", "on", True])
async def test_what_pydantic_takes_for_true_streams(stack, stream):
    decision = await stack.decided(CHAT, body(user("hi"), stream=stream))
    assert decision.candidates.request.streaming


async def test_a_batch_beyond_the_limit_is_cut_and_not_dropped(stack):
    prompts = json.dumps({"model": "m", "prompt": ["a reed in the wind"] * 20_000}).encode()
    tokens, _ = await counted(stack, "/v1/completions", prompts)
    assert tokens == pytest.approx(20_000 * 18 / 4, rel=0.02)


async def test_a_compressed_body_counts_by_its_size(stack):
    data = gzip.compress(PLAIN)
    if stack.router.settings.strict:  # engines do not read it either
        assert (await stack.ask(CHAT, data, **{"content-encoding": "gzip"}))[0] == 400
        return
    decision = await stack.decided(CHAT, data, **{"content-encoding": "gzip"})
    assert decision.candidates.request.prompt_bytes == len(data)


@pytest.mark.parametrize("bad", [b"{", b"[1]", b'"hi"', b'{"model": 5, "messages": []}'])
async def test_only_strict_refuses_and_only_what_an_engine_would(stack, bad):
    status, answer = await stack.ask(CHAT, bad)
    assert status == (400 if stack.router.settings.strict else 200)
    if status == 400:
        assert json.loads(answer)["error"]["message"]


# -- paths ----------------------------------------------------------------------------------------

PATHS = {
    "/chat/completions": body(user(LONG)),
    "/api/v3/chat/completions": body(user(LONG)),
    "/openai/deployments/m/chat/completions?api-version=1": body(user(LONG)),
    "/v1/chat/completions/": body(user(LONG)),
    "/generate": json.dumps({"text": LONG}).encode(),
    "/invocations": body(user(LONG)),
    "/rerank": json.dumps({"query": "q", "documents": [LONG]}).encode(),
    "/v1/rerank": json.dumps({"query": "q", "documents": [LONG]}).encode(),
    "/v2/rerank": json.dumps({"query": "q", "documents": [LONG]}).encode(),
    "/score": json.dumps({"text_1": "q", "text_2": LONG}).encode(),
    "/v1/score": json.dumps({"text_1": "q", "text_2": [LONG]}).encode(),
    "/pooling": json.dumps({"input": LONG}).encode(),
    "/classify": json.dumps({"input": LONG}).encode(),
    "/v1/embeddings": json.dumps({"input": LONG}).encode(),
    "/v1/responses/compact": json.dumps({"model": "m", "input": LONG}).encode(),
}


@pytest.mark.parametrize("path", PATHS)
async def test_every_path_of_inference_is_read(stack, path):
    decision = await stack.decided(path, PATHS[path])
    assert decision.candidates.request.kind is not RequestKind.UNKNOWN
    assert decision.candidates.request.prompt_tokens == pytest.approx(TOKENS, rel=0.02)


@pytest.mark.parametrize(
    "path", ["/v1/audio/transcriptions", "/v2/models/m/infer", "/of/nobody", "/v1/images/edits"]
)
async def test_a_long_body_for_what_nobody_knows_is_load_by_its_size(stack, path):
    decision = await stack.decided(path, bytes(40_000))
    assert decision.candidates.request.prompt_tokens == pytest.approx(10_000)
    assert decision.ranking.reason in (Reason.UNPARSED, Reason.ONLY_ENDPOINT)


async def test_what_computes_nothing_is_left_to_envoy(stack):
    rendering = (f"{CHAT}/render", "/v1/completions/render", f"{CHAT}/derender")
    counting = ("/tokenize", "/v1/messages/count_tokens", "/v1/responses/input_tokens")
    for path in (*counting, *rendering):
        assert (await stack.ask(path, body(user(LONG))))[0] == 200
    assert (await stack.ask("/v1/models"))[0] == 200
    assert stack.recorder.decisions == []


async def test_conversations_of_a_batch_are_prompts_and_answers_of_their_own(stack):
    said = [[user(LONG)], [user(LONG)]]
    decision = await stack.decided(f"{CHAT}/batch", body(*said, n=3))
    request = decision.candidates.request
    assert request.prompt_tokens == pytest.approx(2 * TOKENS, rel=0.02)
    assert (request.n_answers, request.kind) == (6, RequestKind.CHAT_COMPLETIONS)


async def test_a_prompt_that_is_scored_finds_nothing_and_leaves_itself(stack):
    scored = body(user(LONG), prompt_logprobs=0)
    assert (await counted(stack, CHAT, scored, scored))[1] == 0
    assert (await counted(stack, CHAT, body(user(LONG))))[1] == pytest.approx(TOKENS, rel=0.02)


# -- bodies that are meant to hurt ----------------------------------------------------------------

MIB = 2**20
BOMBS = {
    "tiny parts": b'{"messages":[{"role":"user","content":[' + b"{}," * (MIB // 3) + b"{}]}]}",
    "parts of one letter": b'{"messages":[{"role":"user","content":['
    + b'{"a":1},' * (MIB // 8)
    + b"{}]}]}",
    "nested lists": b'{"messages":[' + b"[" * 200_000 + b"]" * 200_000 + b"]}",
    "token ids": b'{"prompt":[' + b"1," * (MIB // 2) + b"1]}",
    "messages": b'{"messages":[' + b'{"role":"user"},' * (MIB // 16) + b"{}]}",
    "plain text": body(user("x" * 10 * MIB)),
}


@pytest.mark.parametrize("what", BOMBS)
async def test_a_body_that_is_meant_to_hurt_takes_little_memory_and_stops_nobody(stack, what):
    await stack.decided(CHAT, PLAIN)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    hostile = asyncio.create_task(stack.ask(CHAT, BOMBS[what]))
    others = [await stack.ask(CHAT, PLAIN) for _ in range(5)]
    assert {status for status, _ in others} == {200}
    assert (await hostile)[0] == 200
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) * 1024
    # Client, service and engine are one process here: each holds the body, and gRPC copies.
    assert grown < 16 * len(BOMBS[what]) + 100 * MIB


# -- what engines say -------------------------------------------------------------------------------


def page(block_tokens: int = 16, *, caching: bool = True, asleep: bool = False) -> bytes:
    return (
        'vllm:num_requests_running{engine="0"} 0.0\nvllm:num_requests_waiting{engine="0"} 0.0\n'
        f'vllm:cache_config_info{{block_size="{block_tokens}",enable_prefix_caching="{caching}",'
        'engine="0",kv_cache_size_tokens="264000",num_gpu_blocks="500"} 1.0\n'
        f'vllm:engine_sleep_state{{engine="0",sleep_state="awake"}} {float(not asleep)}\n'
        f'vllm:engine_sleep_state{{engine="0",sleep_state="weights_offloaded"}} {float(asleep)}\n'
    ).encode()


def tell(stack, number: int = 0, *, at_s: float = 0.0, **changes) -> None:
    address = stack.router.fleet.endpoints[number].address
    stack.router.fleet.record_metrics(address, parse(page(**changes), "vllm"), at_s)


@pytest.mark.parametrize(("n_tokens", "found"), [(474, 0), (1027, 528), (1100, 1056)])
async def test_what_a_cache_of_large_blocks_can_find_is_matched_and_no_more(stack, n_tokens, found):
    tell(stack, block_tokens=528)
    said = LONG[: n_tokens * 4]
    _, matched = await counted(
        stack, CHAT, body(user(said + "a" * 4000)), body(user(said + "b" * 4000))
    )
    assert matched == pytest.approx(found, abs=1)


async def test_an_engine_that_caches_nothing_is_believed_to_hold_nothing(stack):
    tell(stack, caching=False)
    _, matched = await counted(stack, CHAT, PLAIN, PLAIN)
    assert matched == 0


async def test_an_engine_that_sleeps_is_sent_nothing(tmp_path):
    engines = [ScriptedEngine(good(0.01)) for _ in range(2)]
    async with engine_stack(tmp_path, engines) as stack:
        tell(stack, 0, asleep=True)
        for _ in range(6):
            await stack.decided(CHAT, body(user("hi"), stream=True))
        assert [engine.n_asked for engine in engines] == [0, 6]
        assert stack.router.fleet.health.state(engines[0].address, 0.0) is HealthState.SLEEPING
