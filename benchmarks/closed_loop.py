"""A fixed number of agents without pauses that need more than all prefix caches hold, in real time.

Simulated engines, a real Envoy and Lodestar. Each agent asks again as soon as it is answered, with
the same prompt of 3,000 tokens. Every ten seconds: how much of what prompts ask for is lost,
whether the caches count as outgrown, what the engines found, and how long requests took. At the
end, what was told of it.

Example:

    python benchmarks/closed_loop.py --agents 45 --seconds 110
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import numpy as np
import orjson
from extproc_cost import OURS, World, opened_session

from lodestar_extproc.demo.processes import Processes
from lodestar_extproc.evaluation.chats import text

ENGINES, KV_TOKENS, PROMPT_TOKENS, ANSWER_TOKENS = 4, 24_000, 3_000, 60
EVERY_S = 10.0
WATCHED = ("lodestar_lost_prefix_ratio", "lodestar_caches_outgrown")
HITS, QUERIES = "vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total"
OUTGROWN_EVENTS = ("caches_outgrown", "caches_suffice")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--agents", type=int, default=45)
    parser.add_argument("--seconds", type=float, default=110.0)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(asked, Path(folder)))


async def measure(asked: argparse.Namespace, folder: Path) -> None:
    with Processes(folder) as processes:
        async with opened_session() as session:
            world = World(processes, session, folder)
            # The last speed counts: engines as fast as they are, not as the machine allows.
            sizes = ("--kv-capacity", str(KV_TOKENS), "--speed", "1")
            await world.start_engines(ENGINES, *sizes)
            target = await world.start(OURS)
            until_s = time.monotonic() + asked.seconds
            took_s: list[tuple[float, float]] = []
            rng = random.Random(asked.seed)
            agents = [
                agent(session, target.url, body(number, text(rng, PROMPT_TOKENS)), until_s, took_s)
                for number in range(asked.agents)
            ]
            await asyncio.gather(watch(session, world, until_s, took_s), *agents)
            for event in await events(session, world):
                print(event["text"])


def body(number: int, prompt: str) -> bytes:
    said = [{"role": "user", "content": f"agent {number}: {prompt}"}]
    asked = {"model": "llama-3.1-8b", "messages": said, "stream": True}
    return orjson.dumps(asked | {"max_tokens": ANSWER_TOKENS})


async def agent(
    session: aiohttp.ClientSession,
    url: str,
    asked: bytes,
    until_s: float,
    took_s: list[tuple[float, float]],
) -> None:
    """Ask until *until_s*; to the first byte of each answer and to its end goes to *took_s*."""
    while (began_s := time.monotonic()) < until_s:
        async with session.post(f"{url}/v1/chat/completions", data=asked) as answer:
            answer.raise_for_status()
            await answer.content.readany()
            first_s = time.monotonic() - began_s
            await answer.read()
        took_s.append((first_s, time.monotonic() - began_s))


async def watch(
    session: aiohttp.ClientSession,
    world: World,
    until_s: float,
    took_s: list[tuple[float, float]],
) -> None:
    print("| s | lost | outgrown | hits | answers | TTFT, s | end to end, s |")
    print("|---|---|---|---|---|---|---|")
    seen, found, looked_up = 0, 0.0, 0.0
    for n in itertools.count(1):
        await asyncio.sleep(EVERY_S)
        if time.monotonic() > until_s:
            return
        page = await text_of(session, f"{world.admin_url}/metrics")
        lost, outgrown = (sum(values(page, name)) for name in WATCHED)
        pages = [await text_of(session, f"http://{a}/metrics") for a in world.addresses]
        hits, queries = (sum(sum(values(p, name)) for p in pages) for name in (HITS, QUERIES))
        hit_ratio = (hits - found) / max(1.0, queries - looked_up)
        first_s, end_s = np.mean(took_s[seen:], axis=0)
        row = f"| {n * EVERY_S:.0f} | {lost:.2f} | {outgrown:.0f} | {hit_ratio:.2f}"
        print(f"{row} | {len(took_s) - seen} | {first_s:.2f} | {end_s:.2f} |", flush=True)
        seen, found, looked_up = len(took_s), hits, queries


async def events(session: aiohttp.ClientSession, world: World) -> list[dict[str, str]]:
    """Those of caches, the first first."""
    told = orjson.loads(await text_of(session, f"{world.admin_url}/events"))["events"]
    return [each for each in reversed(told) if each["event"] in OUTGROWN_EVENTS]


async def text_of(session: aiohttp.ClientSession, url: str) -> str:
    async with session.get(url) as answer:
        return await answer.text()


def values(page: str, name: str) -> Iterator[float]:
    """Of all series of a metric."""
    rows = (row for row in page.splitlines() if row.startswith((f"{name}{{", f"{name} ")))
    return (float(row.split()[-1]) for row in rows)


if __name__ == "__main__":
    main()
