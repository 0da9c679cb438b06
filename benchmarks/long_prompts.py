"""What prompts of 100,000 tokens cost the service: `make bench-long-prompts`.

Ten simulated engines, ten such prompts a second with twenty short ones beside them, through a real
Envoy with Lodestar and through one without, in turns. CPU is that of the service and of its reader
process, over the time that the load took; memory is what both hold of their own and share (PSS).

The same load is in llm-d router#1348, where its endpoint picker took 3.78 cores and 1.7 GiB, with a
P95 of 30 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import tempfile
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import orjson
from extproc_cost import (
    ALONE,
    NOTHING,
    OURS,
    Target,
    World,
    ask_at_rate,
    bodies,
    cpu_s,
    opened_session,
)

from lodestar_extproc.demo.processes import Processes
from lodestar_extproc.evaluation.chats import text

ENGINES = 10
LONG_TOKENS, LONG_PER_S, SHORT_PER_S = 100_000, 10.0, 20.0
TEXTS = 8
MODEL_LEN, KV_TOKENS = 400_000, 4_000_000
WARM_UP_S = 5.0
MAX_CORES, MAX_MIB = 0.12, 180.0


@dataclass
class Seen:
    """Of one Envoy.

    Attributes:
        cores: CPU seconds a second of the service's processes, each window.
    """

    long_s: list[float] = field(default_factory=list)
    short_s: list[float] = field(default_factory=list)
    cores: list[float] = field(default_factory=list)


def long_bodies(seed: int) -> Iterator[bytes]:
    """Streamed chats of so many tokens; none begins as another does."""
    rng = random.Random(seed)
    texts = [text(rng, LONG_TOKENS) for _ in range(TEXTS)]
    for n in itertools.count():
        said = [{"role": "user", "content": f"request {n} of {seed}: {texts[n % TEXTS]}"}]
        asked = {"model": "llama-3.1-8b", "messages": said, "stream": True, "max_tokens": 4}
        yield orjson.dumps(asked)


def family(pid: int) -> list[int]:
    """The process *pid* and its children, whichever thread began them, the reader among them."""
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    children = [child for thread in threads for child in thread.read_text().split()]
    return [pid, *(each for child in children for each in family(int(child)))]


def pss_mib(pids: list[int]) -> float:
    """Memory of all: what they share counts once."""
    found = 0
    for pid in pids:
        rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        found += sum(int(row.split()[1]) for row in rows if row.startswith("Pss:"))
    return found / 1024


async def load(
    session: aiohttp.ClientSession,
    target: Target,
    seconds: float,
    given: Sequence[Iterator[bytes]],
    seen: Seen,
) -> None:
    """Long ones and short ones at their rates; what came of it goes to *seen*."""

    def at_rate(bodies_: Iterator[bytes], rate_per_s: float) -> Coroutine[Any, Any, list[float]]:
        some = itertools.islice(bodies_, int(seconds * rate_per_s))
        return ask_at_rate(session, target, some, rate_per_s)

    longs, shorts = given
    pids = family(target.pid) if target.pid else []
    began_s, before_s = time.perf_counter(), sum(map(cpu_s, pids))
    long_s, short_s = await asyncio.gather(at_rate(longs, LONG_PER_S), at_rate(shorts, SHORT_PER_S))
    used_s = sum(map(cpu_s, pids)) - before_s
    seen.cores.append(used_s / (time.perf_counter() - began_s))
    seen.long_s += long_s
    seen.short_s += short_s


async def measure(asked: argparse.Namespace, folder: Path) -> dict[str, float]:
    with Processes(folder) as processes:
        async with opened_session() as session:
            world = World(processes, session, folder)
            sizes = ("--kv-capacity", str(KV_TOKENS), "--max-model-len", str(MODEL_LEN))
            await world.start_engines(ENGINES, *sizes)
            targets = [await world.start(name) for name in (ALONE, OURS, NOTHING)]
            given = long_bodies(asked.seed), bodies(asked.seed)
            seen = {target.name: Seen() for target in targets}
            for target in targets:
                await load(session, target, WARM_UP_S, given, Seen())
            for _ in range(asked.rounds):
                for target in targets:
                    await load(session, target, asked.seconds, given, seen[target.name])
                    processes.check()
            held_mib = pss_mib(family(targets[1].pid))
    return told(seen) | {"memory_mib": held_mib}


def told(seen_of: Mapping[str, Seen]) -> dict[str, float]:
    """Medians of the windows, and quantiles of all requests, ms."""
    ours, nothing = seen_of[OURS].cores, seen_of[NOTHING].cores
    found = {
        "cores": float(np.median(ours)),
        "cores_most": max(ours),
        "cores_nothing": float(np.median(nothing)),
        "over_nothing": float(np.median([a / b for a, b in zip(ours, nothing, strict=True)])),
    }
    for name, target in (("alone", ALONE), ("ours", OURS), ("nothing", NOTHING)):
        seen = seen_of[target]
        found[f"long_p50_ms_{name}"] = 1e3 * float(np.percentile(seen.long_s, 50))
        found[f"long_p95_ms_{name}"] = 1e3 * float(np.percentile(seen.long_s, 95))
        found[f"short_p50_ms_{name}"] = 1e3 * float(np.percentile(seen.short_s, 50))
        found[f"short_p99_ms_{name}"] = 1e3 * float(np.percentile(seen.short_s, 99))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0, help="of load, each Envoy a round")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the result here too")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(asked, Path(folder)))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2) + "\n")
    for name, value in found.items():
        print(f"{name:20} {value:8.2f}")
    print(f"targets: {MAX_CORES} cores, {MAX_MIB:.0f} MiB")
    return 0 if found["cores"] <= MAX_CORES and found["memory_mib"] <= MAX_MIB else 1


if __name__ == "__main__":
    raise SystemExit(main())
