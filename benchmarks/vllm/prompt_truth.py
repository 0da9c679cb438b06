"""Prompts as a real vLLM counts and finds them, beside what the router counted and matched.

Everything is real: vLLM on a CPU core, Envoy by the shipped file, `serve`. One engine at a time, so
that every prompt goes where the one before it went.

    python benchmarks/vllm/prompt_truth.py .vllm --publish docs/results/prompt_truth.md
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
from engines import cpu_engine, ready, start
from gateway import Gateway, running_gateway
from truth_cases import CHAT, EMBEDDINGS, PREVIOUS, Case, all_cases, warm_up

from lodestar_extproc.demo.processes import free_ports

SETTINGS = {
    # Every answer is watched to its end, for its usage; one engine may be slow, and is not dead.
    "policy": "prefix_affinity_token_load",
    "observed_ratio": 1.0,
    "health_timeout_s": 10.0,
    "scrape_timeout_s": 10.0,
}
GENERATES = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
POOLS = ("--runner", "pooling", "--convert", "embed")
STORE = {"VLLM_ENABLE_RESPONSES_API_STORE": "1"}
NEAR_RATIO = 0.05
"""What a count of plain text may be off by."""
UNKNOWN = "-"
INTRODUCTION = """# Prompts, as a real engine counts and finds them

vLLM 0.32.0 on a CPU core behind Envoy and `serve`, with a small random model whose template shows
tools, documents, reasoning and calls as those of current models do:
`python benchmarks/vllm/prompt_truth.py .vllm --publish docs/results/prompt_truth.md`.
Bytes a token were learned from forty plain chats before; the last body of each case is compared.
*Off* is of the engine's count, and for what was found, of the prompt. A `-`: the engine does not
tell.

Of {texts} cases of plain words {near} are counted within 5 %; of {found} of which the engine tells
what it found, {alike} are matched within 5 % of the prompt.

| case | status | engine's prompt | counted | off | engine found | matched | off |
|---|---|---|---|---|---|---|---|"""
NOTES = """
What is off by more, and why:

- *Other text* has bytes a token of its own. One number a model is learned, from all plain text;
  this tokenizer, made of generated words, knows little else, so that a letter of Chinese is three
  tokens and each bracket of a schema one. What of such a prompt is found again is matched all the
  same, for both are off alike.
- *Two answers*: the engine reports what the second one found, which the first had just computed.
- *Without the instructions before*: OpenAI's API says that instructions are each turn's own, and
  this engine follows it; others take those of the turn before. The count of the first such answer
  tells which, and is heeded from then on.
- *Rerank and score* with one query: this server embeds the query once. One with a cross-encoder
  reads it again with each document, and that is counted.

Not here: images and sounds, for the model knows none; adapters; engines other than vLLM."""
ANSWER_TIMEOUT_S, SETTLED_TIMEOUT_S = 120.0, 20.0


@dataclass(frozen=True)
class Seen:
    """What became of a case; tokens. None where the engine does not tell."""

    case: str
    path: str
    status: int
    is_text: bool
    counted: float | None = None
    matched: float | None = None
    prompt: int | None = None
    cached: int | None = None

    @property
    def count_error(self) -> float | None:
        """Of the engine's count; above 0 where we count more."""
        if not self.prompt or self.counted is None:
            return None
        return self.counted / self.prompt - 1.0

    @property
    def match_error(self) -> float | None:
        """Of the prompt, what we take for cached beyond what was."""
        if not self.prompt or self.cached is None or self.matched is None or not self.counted:
            return None
        return self.matched / self.counted - self.cached / self.prompt


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("environment", type=Path, help="what setup_cpu.sh made")
    parser.add_argument("--publish", type=Path, help="write the table there")
    parser.add_argument("--json", type=Path, help="write what was seen there")
    parser.add_argument("--core", type=int, default=0)
    asked = parser.parse_args()
    seen: list[Seen] = []
    for pooled, options in ((False, GENERATES), (True, POOLS)):
        cases = [case for case in all_cases() if case.pooled is pooled]
        with tempfile.TemporaryDirectory() as folder:
            seen += await on_one_engine(asked.environment, asked.core, options, cases, Path(folder))
    if asked.json:
        asked.json.write_text(json.dumps([asdict(each) for each in seen], indent=1))
    page = "\n".join(table(seen))
    if asked.publish:
        asked.publish.write_text(page + "\n")
    print(page)


async def on_one_engine(
    environment: Path, core: int, options: Sequence[str], cases: Sequence[Case], folder: Path
) -> list[Seen]:
    """Ask for all of *cases* through a gateway in front of one server with *options*."""
    (port,) = free_ports(1)
    plan = cpu_engine(environment, "tiny", port, core, *options)
    plan = replace(plan, environment=plan.environment | STORE)
    engine = start(plan, folder)
    try:
        await ready([engine])
        timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
        async with (
            running_gateway([plan], SETTINGS, folder) as gateway,
            aiohttp.ClientSession(timeout=timeout) as client,
        ):
            asker = Asker(gateway, client)
            await asker.until_it_decides()
            pooled = any(case.pooled for case in cases)
            for body in warm_up(pooled=pooled):
                await asker.ask(EMBEDDINGS if pooled else CHAT, body, needs_decision=False)
            return [await asker.look_at(case) for case in cases]
    finally:
        engine.stop()


class Asker:
    """Asks through the gateway, and looks up what was decided."""

    def __init__(self, gateway: Gateway, client: aiohttp.ClientSession) -> None:
        self._gateway, self._client = gateway, client
        self._n = 0
        self._previous = ""

    async def until_it_decides(self) -> None:
        """Envoy balances by itself until it has found the service healthy."""
        (first, *_) = warm_up()
        while not (await self._gateway.admin("/decisions?limit=1"))["decisions"]:
            await self.ask(CHAT, first, needs_decision=False)

    async def look_at(self, case: Case) -> Seen:
        """Ask for its bodies in their order; what is seen of the last."""
        for body in case.bodies:
            status, answer, decision = await self.ask(case.path, body)
        usage = _usage(answer)
        return Seen(
            case.name,
            case.path,
            status,
            case.is_text,
            decision.get("prompt_tokens"),
            decision.get("matched_tokens"),
            *_counts(usage),
        )

    async def ask(
        self, path: str, body: bytes, *, needs_decision: bool = True
    ) -> tuple[int, bytes, dict[str, Any]]:
        """The status, the answer and what was decided; nothing of that where it is not needed."""
        self._n += 1
        request_id = f"truth-{self._n}"
        body = body.replace(PREVIOUS.encode(), self._previous.encode())
        headers = {"content-type": "application/json", "x-request-id": request_id}
        url = self._gateway.url + path
        async with self._client.post(url, data=body, headers=headers) as response:
            status, answer = response.status, await response.read()
        if answer.startswith(b"{"):
            self._previous = str(json.loads(answer).get("id", ""))
        decision = await self._decision(request_id) if needs_decision else {}
        return status, answer, decision

    async def _decision(self, request_id: str) -> dict[str, Any]:
        """What was decided, once its end is known."""
        until_s = asyncio.get_running_loop().time() + SETTLED_TIMEOUT_S
        while asyncio.get_running_loop().time() < until_s:
            decisions = (await self._gateway.admin("/decisions?limit=3"))["decisions"]
            for each in decisions:
                if each["request_id"] == request_id and each["outcome"]:
                    return dict(each)
            await asyncio.sleep(0.05)
        raise RuntimeError(f"the decision of {request_id} has not ended")


def _usage(answer: bytes) -> dict[str, Any]:
    """The usage of an answer in one piece, or of the last event that tells one."""
    lines = [line[6:] for line in answer.split(b"\n") if line.startswith(b"data: {")] or [answer]
    for line in reversed(lines):
        usage = json.loads(line).get("usage") if line.startswith(b"{") else None
        if usage:
            return dict(usage)
    return {}


def _counts(usage: dict[str, Any]) -> tuple[int | None, int | None]:
    """Tokens of the prompt, and of them those found in the cache."""
    if "cache_read_input_tokens" in usage or "input_tokens" in usage:
        read = usage.get("cache_read_input_tokens") or 0
        details = usage.get("input_tokens_details")
        if details is not None:
            return usage["input_tokens"], details.get("cached_tokens")
        written = usage.get("cache_creation_input_tokens") or 0
        return usage["input_tokens"] + read + written, read
    details = usage.get("prompt_tokens_details") or {}
    return usage.get("prompt_tokens") or usage.get("total_tokens"), details.get("cached_tokens")


def table(seen: Sequence[Seen]) -> list[str]:
    """The page."""
    texts = [s for s in seen if s.is_text and s.count_error is not None]
    near = sum(abs(s.count_error or 0.0) <= NEAR_RATIO for s in texts)
    found = [s for s in seen if s.match_error is not None]
    alike = sum(abs(s.match_error or 0.0) <= NEAR_RATIO for s in found)
    lines = INTRODUCTION.format(texts=len(texts), near=near, found=len(found), alike=alike).split(
        "\n"
    )
    for each in seen:
        cells = (
            each.case if each.is_text else f"{each.case} (other text)",
            str(each.status),
            _number(each.prompt),
            _number(each.counted),
            _percent(each.count_error),
            _number(each.cached),
            _number(each.matched),
            _percent(each.match_error),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, *NOTES.split("\n")]


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.0f}"


def _percent(value: float | None) -> str:
    return UNKNOWN if value is None else f"{100 * value:+.1f} %"


if __name__ == "__main__":
    asyncio.run(main())
