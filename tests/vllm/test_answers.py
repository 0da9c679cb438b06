"""Answers of real engines, through Envoy and the service: whole, streamed, cached, timed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import suppress
from functools import partial
from itertools import pairwise

import openai
import pytest
from cells import CPU_BLOCK_TOKENS
from engines import MODEL

from lodestar_extproc.extproc.answer import AnswerReader
from lodestar_extproc.fleet.engine_metrics import parse
from real_stack import prompt
from waiting import until

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope="session"),
]


async def test_text_is_the_engines_own_to_the_byte_streamed_and_whole(stack):
    said = prompt(20, "exact")
    own = [
        (await stack.ask(said, url=engine.plan.url, max_tokens=24, stream=streamed)).text
        for engine in stack.engines
        for streamed in (True, False)
    ]
    through = [
        (await stack.ask(said, max_tokens=24, stream=streamed)).text for streamed in (True, False)
    ]
    assert set(own) == set(through)
    assert len(own[0]) > 24


async def test_the_openai_client_needs_no_change(stack):
    async with openai.AsyncOpenAI(base_url=stack.gateway.url + "/v1", api_key="none") as client:
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "hello"}],
            max_tokens=5,
            stream=True,
            temperature=0,
        )
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
        whole = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "hello"}],
            max_tokens=5,
            temperature=0,
        )
    assert "".join(pieces) == whole.choices[0].message.content != ""


async def test_a_prefix_that_returns_is_sent_back_to_its_cache_and_hits(stack):
    shared = prompt(300, "returns")
    first = await stack.ask(shared + " one")
    assert first.cached_tokens < CPU_BLOCK_TOKENS * 2
    for turn in ("two", "three", "four"):
        again = await stack.ask(f"{shared} {turn}")
        decision = await stack.last_decision()
        assert again.served_by == first.served_by == decision["served"]
        share = again.cached_tokens / again.usage["prompt_tokens"]
        predicted = decision["matched_tokens"] / decision["prompt_tokens"]
        assert share > 0.9
        assert predicted == pytest.approx(share, abs=0.05)


async def test_the_index_agrees_with_what_the_engines_say_they_hold(stack):
    """Predicted hits against exact ones, while prompts come, go, and are evicted."""
    predicted, exact, total, states = [], [], [], []
    for number in range(60):
        # Twelve shared prefixes of about 1500 tokens do not all fit; some prompts are new.
        said = prompt(250, f"group{number * 7 % 12}") + prompt(10, f"own{number}")
        tokens = await _tokens(stack, said)
        answer = await stack.ask(said, max_tokens=2)
        decision = await stack.last_decision()
        follower = stack.caches[stack.engines.index(stack.engine_of(answer))]
        total.append(len(tokens))
        predicted.append(decision["matched_tokens"] / decision["prompt_tokens"] * len(tokens))
        exact.append(answer.cached_tokens)
        # The events explain the engine: what it stored for this prompt can be found.
        await until(partial(_holds, follower, tokens))
        states.append({e["address"]: e["state"] for e in (await stack.pool())["endpoints"]})
    # An engine that was away takes a while to be believed again.
    changes = [
        f"prompt {n}: {now}" for n, (was, now) in enumerate(pairwise(states), 1) if now != was
    ]
    assert all(cache.gaps == 0 for cache in stack.caches)
    off = sum(abs(p - e) for p, e in zip(predicted, exact, strict=True)) / sum(total)
    alike = sum(
        abs(p - e) <= 0.1 * n for p, e, n in zip(predicted, exact, total, strict=True)
    ) / len(total)
    print(
        f"\npredicted and exact hit: {alike:.0%} of prompts within a tenth of the prompt; "
        f"mean difference {off:.1%}; hit share {sum(exact) / sum(total):.0%} exact, "
        f"{sum(predicted) / sum(total):.0%} predicted; "
        f"removed blocks {[cache.removed for cache in stack.caches]}; "
        f"changes of state: {'; '.join(changes) or 'none'}"
    )
    assert alike > 0.8, changes
    assert off < 0.1


async def _holds(follower, tokens) -> bool:
    follower.read()
    whole_blocks = len(tokens) // CPU_BLOCK_TOKENS * CPU_BLOCK_TOKENS
    return follower.match(tokens, CPU_BLOCK_TOKENS) == whole_blocks


async def _tokens(stack, said: str) -> list[int]:
    body = {"model": MODEL, "messages": [{"role": "user", "content": said}]}
    url = stack.engines[0].plan.url + "/tokenize"
    async with stack.client.post(url, json=body) as response:
        return list((await response.json())["tokens"])


async def test_a_keep_alive_comment_is_no_first_token(stack):
    """The engine's own process is held while its HTTP server goes on sending comments."""
    first = await stack.ask(prompt(100, "comment"))
    engine = stack.engine_of(first)
    (core, *_) = engine.workers()
    os.kill(core, signal.SIGSTOP)
    try:
        asked = asyncio.create_task(stack.ask(prompt(100, "comment") + " more"))
        await asyncio.sleep(2.3)
    finally:
        os.kill(core, signal.SIGCONT)
    answer = await asked
    decision = await stack.last_decision()
    assert answer.served_by == first.served_by
    assert answer.chunks[0][1].startswith(b":")
    assert answer.chunks[0][0] < 1.5
    first_data_s = next(after_s for after_s, chunk in answer.chunks if b"data:" in chunk)
    assert first_data_s > 2.2
    assert decision["ttft_s"] == pytest.approx(first_data_s, abs=0.2)


async def test_several_tokens_in_one_event_are_one_text_and_all_are_counted(stack):
    said = prompt(30, "burst")
    whole = await stack.ask(said, max_tokens=40, stream=False)
    engine = stack.engine_of(whole)
    asked = asyncio.create_task(stack.ask(said, max_tokens=400))
    await asyncio.sleep(0.3)
    os.kill(engine.pid, signal.SIGSTOP)  # its HTTP server; the engine computes on
    try:
        await asyncio.sleep(0.4)
    finally:
        os.kill(engine.pid, signal.SIGCONT)
    answer = await asked
    contents = [
        e for e in answer.events if e["choices"] and e["choices"][0]["delta"].get("content")
    ]
    assert answer.usage["completion_tokens"] == 400 > len(contents)
    assert answer.text.startswith(whole.text)


@pytest.mark.parametrize("tool", [False, True])
async def test_the_first_token_is_the_first_event_with_content(stack, tool):
    """Real bytes, fed one by one: the role's chunk alone is none, text and tool calls are."""
    fields = {}
    if tool:
        function = {
            "name": "go",
            "parameters": {
                "type": "object",
                "properties": {"there": {"type": "boolean"}},
                "required": ["there"],
                "additionalProperties": False,
            },
        }
        fields = {
            "tools": [{"type": "function", "function": function}],
            "tool_choice": "required",
        }
    answer = await stack.ask("where to?", max_tokens=40, **fields)
    assert answer.status == 200, answer.body
    reader, at = AnswerReader(), 0
    while not reader.first_token:
        reader.feed(answer.body[at : at + 1])
        at += 1
    seen = [
        json.loads(line[6:]) for line in answer.body[:at].split(b"\n") if line[:7] == b"data: {"
    ]
    deltas = [event["choices"][0]["delta"] for event in seen]
    assert all(not d.get("content") and not d.get("tool_calls") for d in deltas[:-1])
    assert deltas[-1].get("tool_calls" if tool else "content")


async def test_the_real_metric_page_says_everything_the_fleet_wants(stack):
    await stack.ask(prompt(50, "page"))
    for engine in stack.engines:
        async with stack.client.get(engine.plan.url + "/metrics") as response:
            metrics = parse(await response.read(), "vllm")
        unknown = [name for name in metrics._fields if getattr(metrics, name) is None]
        assert unknown == ["adapters"]  # none are served
        assert metrics.kv_capacity_tokens == pytest.approx(16 * 2**20 / 1024, rel=0.01)


async def test_nothing_stays_in_flight_after_clients_that_leave(stack):
    async def leave(number: int) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.05 + 0.03 * (number % 7)):
                await stack.ask(prompt(200, f"leave{number}"), max_tokens=64)

    await asyncio.gather(*(leave(number) for number in range(24)))

    async def idle() -> bool:
        pool = await stack.pool()
        load = [e["prefill_requests"] + e["decode_requests"] for e in pool["endpoints"]]
        return pool["open_decisions"] == 0 and sum(load) == 0

    assert await until(idle)
