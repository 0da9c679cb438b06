"""Real engines that freeze, stop and die: who notices, and what a client sees of it."""

from __future__ import annotations

import asyncio
import os
import signal

import aiohttp
import pytest

from real_stack import FROZEN_AFTER_S, prompt
from waiting import until

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(400),
    pytest.mark.asyncio(loop_scope="session"),
]
LONG = 2000


async def served_elsewhere(stack, engine, n: int = 6) -> None:
    """New prompts, which would have gone to either, all go to the other engine and succeed."""
    answers = [await stack.ask(f"{os.urandom(200).hex()}") for _ in range(n)]
    assert {(a.status, a.served_by) for a in answers} == {(200, stack.other(engine).plan.address)}
    assert all(a.text for a in answers)


async def back(stack, engine) -> None:
    """It is chosen again."""

    async def chosen() -> bool:
        answer = await stack.ask(os.urandom(300).hex())
        return answer.served_by == engine.plan.address

    assert await until(chosen, deadline_s=60.0)


async def test_a_frozen_engine_is_left_and_taken_back(stack):
    """Its worker is stopped: /health and /metrics answer on, requests hang."""
    engine = stack.engine_of(await stack.ask(said := prompt(100, "freeze")))
    workers = engine.workers()
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        began_s = asyncio.get_running_loop().time()
        hung = asyncio.create_task(stack.ask(said + " later"))
        heard: list[asyncio.Task] = []

        async def noticed() -> bool:
            # Silence tells only while the other engine is heard.
            heard.append(asyncio.create_task(stack.ask(os.urandom(100).hex(), max_tokens=2)))
            return await stack.state_of(engine) == "frozen"

        await until(noticed, deadline_s=30.0)
        took_s = asyncio.get_running_loop().time() - began_s
        await served_elsewhere(stack, engine)
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
    print(f"\nfrozen after {took_s:.1f} s, set to {FROZEN_AFTER_S:g} s")
    answers = await asyncio.gather(hung, *heard)
    assert {answer.status for answer in answers} == {200}
    assert all(answer.text for answer in answers)
    await back(stack, engine)


async def begun(stack, said: str):
    """An engine that streams a long answer to *said*, and the answer to come."""
    streaming = asyncio.create_task(stack.ask(said, max_tokens=LONG))
    await asyncio.sleep(1.0)
    (newest,) = (await stack.gateway.admin("/decisions?limit=1"))["decisions"]
    engine = next(e for e in stack.engines if e.plan.address == newest["chosen"])
    return engine, streaming


async def breaks_off(stack, engine, streaming) -> None:
    """The stream, a 200 long ago, ends with an error event, which counts as a failure."""
    answer = await streaming
    assert (answer.status, answer.served_by) == (200, engine.plan.address)
    assert "error" in answer.events[-1]

    async def counted() -> bool:
        decisions = (await stack.gateway.admin("/decisions?limit=5"))["decisions"]
        failed = [d for d in decisions if d["outcome"] == "failed"]
        return engine.plan.address in {d["served"] for d in failed}

    assert await until(counted)


async def left_within(stack, engine, limit_s: float) -> None:
    """New prompts succeed elsewhere after *limit_s* at most."""
    began_s = asyncio.get_running_loop().time()

    async def unroutable() -> bool:
        return await stack.state_of(engine) != "healthy"

    await until(unroutable, deadline_s=limit_s)
    print(f"\nleft after {asyncio.get_running_loop().time() - began_s:.1f} s")
    await served_elsewhere(stack, engine)


async def test_a_terminated_engine_is_left_and_taken_back_when_it_returns(stack):
    """What vLLM does to streams it has begun varies: see `how_it_ended`. New prompts never fail."""
    engine, streaming = await begun(stack, prompt(100, "terminate"))
    os.kill(engine.pid, signal.SIGTERM)
    await left_within(stack, engine, 3.0)
    print(f"\nthe stream under way: {await how_it_ended(streaming)}")
    fresh = await stack.restart(engine)
    await back(stack, fresh)


async def how_it_ended(streaming: asyncio.Task) -> str:
    """A stream whose engine was told to end."""
    try:
        answer = await asyncio.wait_for(streaming, 60)
    except TimeoutError:
        return "stalled"
    except aiohttp.ClientError:
        return "broke off"
    last = answer.events[-1]
    if "error" in last:
        return "error event"
    reasons = [c["finish_reason"] for e in answer.events for c in e["choices"]]
    return f"finish_reason {next(filter(None, reversed(reasons)), None)}"


async def test_a_killed_engine_fails_what_it_had_begun_and_nothing_else(stack):
    engine, streaming = await begun(stack, prompt(100, "kill"))
    for pid in engine.workers():
        os.kill(pid, signal.SIGKILL)
    await breaks_off(stack, engine, streaming)
    await left_within(stack, engine, 3.0)

    async def settled() -> bool:
        return (await stack.pool())["open_decisions"] == 0

    assert await until(settled)
