"""What is taken to be cached just before each prompt goes, beside what a real vLLM then finds.

Sessions that share their beginnings and grow turn by turn, some at the same time, on a cache that
holds a part of them. Everything is real: vLLM on a CPU core, Envoy by the shipped file, `serve`;
with and without its KV events.

    python benchmarks/vllm/cache_truth.py .vllm
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from engines import MODEL, cpu_engine, ready, reset_caches, start
from gateway import Gateway, running_gateway
from session_text import LETTERS_PER_TOKEN

from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.demo.processes import free_ports
from lodestar_extproc.evaluation.chats import BYTES_PER_TOKEN, text

CHAT = "/v1/chat/completions"
SETTINGS = {
    # Every answer is watched to its end, for its usage; one engine may be slow, and is not dead.
    "policy": "prefix_affinity_token_load",
    "health_timeout_s": 10.0,
    "scrape_timeout_s": 10.0,
    "hold_limit_s": 0.0,
}
CACHE_MIB = 24
"""24,576 tokens; all sessions together have three times as many."""
N_GROUPS, N_SESSIONS, N_TURNS = 4, 24, 6
WARM_UP_PROMPTS = 12
DEFAULT_BYTES_PER_TOKEN = PoolSettings().bytes_per_token
UNWATCHED_TOKENS = 150
"""Of an answer that takes more than half a second: shorter ones are watched to their end."""
ANSWER_TIMEOUT_S, SETTLED_TIMEOUT_S = 120.0, 20.0


@dataclass(frozen=True)
class Found:
    """Of one prompt, in tokens: its own, those taken to be cached, those found; by the engine."""

    prompt: int
    matched: float
    cached: int


@dataclass(frozen=True)
class Plan:
    """How the sessions are asked.

    Attributes:
        at_once: prompts in flight.
        usage_is_read: by the router; else answers are streamed, and it reads their beginnings.
        max_tokens: of an answer, which the next turn repeats.
        bytes_per_token: the pool's setting; 2 is nearly what it is.
    """

    name: str
    events: bool
    at_once: int
    usage_is_read: bool = True
    max_tokens: int = 8
    seed: int = 1
    bytes_per_token: float = 2.0


def total_error(found: Sequence[Found]) -> float:
    """Of all prompt tokens, those that were wrongly taken to be cached, or not to be."""
    return sum(abs(f.matched - f.cached) for f in found) / sum(f.prompt for f in found)


async def on_one_engine(
    environment: Path, core: int, plans: Sequence[Plan], folder: Path
) -> dict[str, list[Found]]:
    """What was found by each of *plans*, one after another on one server, from an empty cache."""
    port, events, replay = free_ports(3)
    publishing = {
        "enable_kv_cache_events": True,
        "publisher": "zmq",
        "endpoint": f"tcp://*:{events}",
        "replay_endpoint": f"tcp://*:{replay}",
        "topic": "kv",
    }
    plan = cpu_engine(
        *(environment, "tiny", port, core, "--kv-events-config", json.dumps(publishing)),
        kv_cache_mib=CACHE_MIB,
    )
    engine = start(plan, folder)
    try:
        await ready([engine])
        seen = {}
        for each in plans:
            await reset_caches([engine])
            (place := folder / each.name.replace(" ", "_")).mkdir()
            settings = SETTINGS | {
                "observed_ratio": float(each.usage_is_read),
                "bytes_per_token": each.bytes_per_token,
            }
            if each.events:
                following = {"port": events, "replay_port": replay, "topic": "kv"}
                settings |= {"kv_events": following}
            async with running_gateway([plan], settings, place) as gateway:
                seen[each.name] = await Sessions(gateway, each).found()
        return seen
    finally:
        engine.stop()


class Answer(NamedTuple):
    """What was generated, and its usage."""

    text: str
    usage: dict[str, Any]


def read_answer(body: bytes) -> Answer:
    """A document's, or that of events with the usage in the last one."""
    if not body.startswith(b"data:"):
        answer = json.loads(body)
        return Answer(answer["choices"][0]["message"]["content"], answer["usage"])
    told = [line[5:] for line in body.splitlines() if line.startswith(b"data:")]
    events = [json.loads(each) for each in told if each.strip() != b"[DONE]"]
    parts = [choice["delta"].get("content") or "" for e in events for choice in e["choices"]]
    return Answer("".join(parts), events[-1]["usage"])


class Sessions:
    """Asks all turns of all sessions, each turn after its session's turn before."""

    def __init__(self, gateway: Gateway, plan: Plan) -> None:
        self._gateway, self._plan = gateway, plan
        self._random = random.Random(plan.seed)
        self._n = 0

    async def found(self) -> list[Found]:
        """Of every prompt, in the order in which they ended."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as self._client:
            while not (await self._gateway.admin("/decisions?limit=1"))["decisions"]:
                await self._ask([{"role": "user", "content": "Are you there?"}])
            for _ in range(WARM_UP_PROMPTS):
                await self._ask([{"role": "user", "content": self._text(600)}])
            found: list[Found] = []
            turns = self._turns()
            await asyncio.gather(
                *(self._keep_asking(turns, found) for _ in range(self._plan.at_once))
            )
            return found

    def _turns(self) -> list[list[dict[str, str]]]:
        """Conversations so far, in the order of their next turns: sessions come back at random."""
        systems = [self._text(self._random.randint(800, 1600)) for _ in range(N_GROUPS)]
        sessions = [
            [{"role": "system", "content": systems[n % N_GROUPS]}] for n in range(N_SESSIONS)
        ]
        order = [session for session in sessions for _ in range(N_TURNS)]
        # Near each other, so that some are found again and others have been given up.
        keyed = [
            (i % N_TURNS * 6 + self._random.uniform(0, 24) + i // N_TURNS, i)
            for i in range(len(order))
        ]
        return [order[i] for _, i in sorted(keyed)]

    async def _keep_asking(self, turns: list[list[dict[str, str]]], found: list[Found]) -> None:
        while turns:
            session = turns.pop(0)
            while session and session[-1]["role"] == "user":  # its turn before is being answered
                turns.append(session)
                session = turns.pop(0)
                await asyncio.sleep(0.01)
            session.append({"role": "user", "content": self._text(self._random.randint(100, 700))})
            answer, decision = await self._ask(session)
            session.append({"role": "assistant", "content": answer.text})
            if not decision:  # on a busy machine Envoy may not have waited for it
                continue
            cached = (answer.usage["prompt_tokens_details"] or {}).get("cached_tokens") or 0
            found.append(Found(answer.usage["prompt_tokens"], decision["matched_tokens"], cached))

    async def _ask(self, messages: list[dict[str, str]]) -> tuple[Answer, dict[str, Any]]:
        self._n += 1
        request_id = f"cache-{self._plan.name.replace(' ', '-')}-{self._n}"
        body = {
            "model": MODEL,
            "messages": messages,
            "max_tokens": self._plan.max_tokens,
            "temperature": 0,
        }
        if not self._plan.usage_is_read:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        headers = {"x-request-id": request_id}
        url = self._gateway.url + CHAT
        async with self._client.post(url, json=body, headers=headers) as response:
            answer = read_answer(await response.read())
        return answer, await self._decision(request_id) if self._n > 1 else {}

    async def _decision(self, request_id: str) -> dict[str, Any]:
        decisions = (await self._gateway.admin("/decisions?limit=20"))["decisions"]
        return next((dict(each) for each in decisions if each["request_id"] == request_id), {})

    def _text(self, n_tokens: int) -> str:
        return text(self._random, int(n_tokens * LETTERS_PER_TOKEN / BYTES_PER_TOKEN))


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("environment", type=Path, help="what setup_cpu.sh made")
    parser.add_argument("--json", type=Path, help="write what was seen there")
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--only", default="")
    asked = parser.parse_args()
    plans = [p for p in PLANS if asked.only in p.name]
    with tempfile.TemporaryDirectory() as folder:
        seen = await on_one_engine(asked.environment, asked.core, plans, Path(folder))
    if asked.json:
        asked.json.write_text(json.dumps({k: [asdict(f) for f in v] for k, v in seen.items()}))
    for name, found in seen.items():
        hits = sum(f.cached for f in found) / sum(f.prompt for f in found)
        print(f"{name}: {len(found)} prompts, {hits:.1%} found, error {total_error(found):.2%}")


NO_USAGE = Plan(
    "four at once, with events, no usage",
    events=True,
    at_once=4,
    usage_is_read=False,
    max_tokens=UNWATCHED_TOKENS,
)
PLANS = (
    Plan("one by one, without events", events=False, at_once=1),
    Plan("one by one, with events", events=True, at_once=1),
    Plan("four at once, without events", events=False, at_once=4),
    Plan("four at once, with events", events=True, at_once=4),
    NO_USAGE,
    replace(NO_USAGE, name=f"{NO_USAGE.name}, as shipped", bytes_per_token=DEFAULT_BYTES_PER_TOKEN),
    Plan("long answers, without events", events=False, at_once=4, max_tokens=150),
    Plan("long answers, with events", events=True, at_once=4, max_tokens=150),
)

if __name__ == "__main__":
    asyncio.run(main())
