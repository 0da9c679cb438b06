"""Agent sessions at full length through a real Envoy: bodies of up to 1 MB and more, turn by turn.

    python benchmarks/full_length.py                    the shipped files, newest Envoy
    python benchmarks/full_length.py --envoy PROGRAM --file variants/envoy_1_36.yaml
    python benchmarks/full_length.py --memory           the index of 1,000 such sessions

Sessions begin with a list of tools and a project, and each turn adds an answer and a tool's result,
until the context holds 200,000 tokens. Sessions run side by side; their turns wait for answers.
Engines are simulated and fast, so that what is measured is the way through Envoy and Lodestar. For
every file: requests, how many failed, how many were decided, how many of these without their prompt
read, the mean time of a decision, the median of a whole request, the service's CPU for a MB of
bodies, and its resident memory before and after.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML

from lodestar_extproc.demo.processes import Processes, beside_python, free_ports
from lodestar_extproc.fleet.prefix_index import PrefixIndex
from lodestar_extproc.request import hash_blocks

ENVOY_FILES = Path(__file__).parents[1] / "envoy"
FILES = ("envoy.yaml", "variants/full_duplex.yaml")
ENGINES = 4
WINDOW_TOKENS = 200_000
FIRST_TOKENS = 60_000
"""Tools, project and task: what a session begins with."""
TURN_TOKENS = 12_000
"""What a turn adds; larger than recorded ones, so that a few turns reach the window."""
LETTERS_PER_TOKEN = 7
"""Of logs and code with JSON's escapes; counted by 4 letters, a full window is 350,000 tokens."""
ANSWER_TOKENS = 16
WORDS = ("harbour", "tide", "table", "pilot", "chart", "buoy", '"depth": 12', "\n  ", "naïve")
BLOCK_TOKENS = 16
NEWER = "selected_host_key"
"""Of the load balancing policy; Envoy 1.36 has no such field, and serves without."""
MIB = 2**20


@dataclass
class Session:
    """One agent's conversation, which grows."""

    number: int
    rng: random.Random
    messages: list[dict[str, Any]]
    tokens: int = 0

    @classmethod
    def begun(cls, number: int) -> Session:
        rng = random.Random(number)
        session = cls(number, rng, [])
        tools = random.Random(number % 5)
        session.messages.append({"role": "system", "content": said(tools, FIRST_TOKENS // 4)})
        session.messages.append({"role": "user", "content": said(rng, 3 * FIRST_TOKENS // 4)})
        session.tokens = FIRST_TOKENS
        return session

    def grow(self) -> None:
        """A tool was called, and answered."""
        name = f"call_{len(self.messages)}"
        call = {"id": name, "type": "function", "function": {"name": "read", "arguments": "{}"}}
        self.messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        result = said(self.rng, TURN_TOKENS)
        self.messages.append({"role": "tool", "tool_call_id": name, "content": result})
        self.tokens += TURN_TOKENS

    def body(self) -> bytes:
        asked = {"model": "llama-3.1-8b", "stream": True, "max_tokens": ANSWER_TOKENS}
        return json.dumps(asked | {"messages": self.messages}).encode()


def said(rng: random.Random, tokens: int) -> str:
    """About so many tokens of text."""
    letters = tokens * LETTERS_PER_TOKEN
    return " ".join(rng.choices(WORDS, k=letters // 6))[:letters]


@dataclass
class Outcome:
    """Of one file."""

    bytes_sent: list[int]
    took_s: list[float]
    failures: list[str]
    decided: dict[str, float]
    rss_mib: tuple[float, float]
    cpu_s: float


def edited(file: str, listener: int, ext_proc: int, engines: Sequence[int]) -> dict[str, Any]:
    """The shipped *file* with our addresses."""
    config = YAML(typ="safe").load(ENVOY_FILES / file)
    config["admin"]["address"] = socket_address(free_ports(1)[0])
    resources = config["static_resources"]
    resources["listeners"][0]["address"] = socket_address(listener)
    for cluster in resources["clusters"]:
        ports = engines if cluster["name"] == "engines" else [ext_proc]
        members = [{"endpoint": {"address": socket_address(port)}} for port in ports]
        cluster["load_assignment"]["endpoints"] = [{"lb_endpoints": members}]
    return dict(config)


def socket_address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def without(value: Any, key: str) -> Any:
    """*value* with *key* left out of every mapping in it."""
    if isinstance(value, dict):
        return {k: without(v, key) for k, v in value.items() if k != key}
    return [without(each, key) for each in value] if isinstance(value, list) else value


async def measure(file: str, envoy: str, sessions: int, folder: Path) -> Outcome:
    """All turns of *sessions* sessions through *file*."""
    listener, ext_proc, admin = free_ports(3)
    first = free_ports(1)[0]
    engines = list(range(first, first + ENGINES))
    path = folder / "envoy.json"
    config = edited(file, listener, ext_proc, engines)
    if envoy != beside_python("envoy"):
        config = without(config, NEWER)
    path.write_text(json.dumps(config))
    simulate = (sys.executable, "-m", "lodestar_extproc", "simulate", "--speed", "2000")
    serve = (sys.executable, "-m", "lodestar_extproc", "serve", "--envoy-config", str(path))
    with Processes(folder) as processes:
        processes.start(
            "engines",
            [
                *(*simulate, "--instances", f"h200:{ENGINES}", "--port", str(first)),
                *("--kv-capacity", str(2 * WINDOW_TOKENS * sessions)),
                *("--max-model-len", str(3 * WINDOW_TOKENS)),
            ],
        )
        pid = processes.start("lodestar", [*serve, "--admin", f"127.0.0.1:{admin}"])
        processes.start("envoy", [envoy, "--config-path", str(path), "--use-dynamic-base-id"])
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as client:
            for port in (admin, *engines):
                page = "ready" if port == admin else "health"
                await processes.ready(client, f"http://127.0.0.1:{port}/{page}")
            await processes.ready(client, f"http://127.0.0.1:{listener}/v1/models")
            outcome = Outcome([], [], [], {}, (rss_mib(pid), 0.0), 0.0)
            before_s = cpu_s(pid)
            url = f"http://127.0.0.1:{listener}/v1/chat/completions"
            limit = asyncio.Semaphore(4)
            await asyncio.gather(
                *(converse(client, url, Session.begun(n), outcome, limit) for n in range(sessions))
            )
            outcome.decided = await counters(client, admin)
            outcome.cpu_s = cpu_s(pid) - before_s
            outcome.rss_mib = (outcome.rss_mib[0], rss_mib(pid))
    return outcome


async def converse(
    client: aiohttp.ClientSession,
    url: str,
    session: Session,
    outcome: Outcome,
    limit: asyncio.Semaphore,
) -> None:
    """A session from its first turn until its window is full."""
    while session.tokens <= WINDOW_TOKENS:
        async with limit:
            body = session.body()
            started_s = time.perf_counter()
            failure = await ask(client, url, body)
        outcome.bytes_sent.append(len(body))
        outcome.took_s.append(time.perf_counter() - started_s)
        if failure:
            outcome.failures.append(f"session {session.number}, {len(body)} bytes: {failure}")
        session.grow()


async def ask(client: aiohttp.ClientSession, url: str, body: bytes) -> str:
    """Why it failed; empty where it did not."""
    headers = {"content-type": "application/json"}
    try:
        async with client.post(url, data=body, headers=headers) as response:
            answer = await response.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        return repr(error)
    if response.status != 200 or not answer.rstrip().endswith(b"[DONE]"):
        return f"{response.status} {answer[-200:]!r}"
    return ""


async def counters(client: aiohttp.ClientSession, admin: int) -> dict[str, float]:
    """The service's own, summed over labels other than the reason of a decision."""
    found: Counter[str] = Counter()
    async with client.get(f"http://127.0.0.1:{admin}/metrics") as response:
        for family in text_string_to_metric_families(await response.text()):
            for sample in family.samples:
                found[sample.name] += sample.value
                if "reason" in sample.labels:
                    found[f"{sample.name} {sample.labels['reason']}"] += sample.value
    return dict(found)


def rss_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def lines(file: str, outcome: Outcome) -> Iterator[str]:
    """A row of the table, and what failed."""
    told = outcome.decided
    decided, unread = (told.get(f"lodestar_decisions_total{of}", 0.0) for of in ("", " unparsed"))
    mean_ms = 1e3 * told["lodestar_decision_seconds_sum"] / told["lodestar_decision_seconds_count"]
    mb = sum(outcome.bytes_sent) / 1e6
    yield (
        f"| {file} | {len(outcome.took_s)} | {len(outcome.failures)} | {decided:.0f} "
        f"| {unread:.0f} "
        f"| {min(outcome.bytes_sent) / 1e6:.2f} to {max(outcome.bytes_sent) / 1e6:.2f} "
        f"| {mean_ms:.0f} | {1e3 * float(np.median(outcome.took_s)):.0f} "
        f"| {1e3 * outcome.cpu_s / mb:.1f} "
        f"| {outcome.rss_mib[0]:.0f} to {outcome.rss_mib[1]:.0f} |"
    )
    yield from outcome.failures[:5]


def measure_memory(sessions: int) -> None:
    """What an index holds of *sessions* sessions of a full window each, and what it costs."""
    blocks = WINDOW_TOKENS // BLOCK_TOKENS
    index = PrefixIndex(sessions * blocks)
    rng = random.Random(0)
    before_mib = rss_mib(os.getpid())
    for _ in range(sessions):
        prompt = rng.randbytes(WINDOW_TOKENS * LETTERS_PER_TOKEN)
        index.insert(hash_blocks(prompt))
    grown_mib = rss_mib(os.getpid()) - before_mib
    what = f"{sessions:,} sessions of {WINDOW_TOKENS:,} tokens, {len(index):,} blocks"
    print(f"{what}: {grown_mib:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--file", action="append", help=f"of envoy/; {', '.join(FILES)}")
    parser.add_argument("--envoy", default=beside_python("envoy"), help="its program")
    parser.add_argument("--sessions", type=int, default=12)
    parser.add_argument("--memory", action="store_true", help="instead: the index of 1,000")
    asked = parser.parse_args()
    if asked.memory:
        measure_memory(1_000)
        return
    names = (
        "file",
        "requests",
        "failed",
        "decided",
        "unread",
        "body, MB",
        "decision, ms",
        "p50, ms",
    )
    print(f"| {' | '.join((*names, 'CPU, ms a MB', 'resident, MiB'))} |")
    print("|---|---|---|---|---|---|---|---|---|")
    for file in asked.file or FILES:
        with tempfile.TemporaryDirectory() as folder:
            outcome = asyncio.run(measure(file, asked.envoy, asked.sessions, Path(folder)))
        for line in lines(file, outcome):
            print(line, flush=True)


if __name__ == "__main__":
    main()
