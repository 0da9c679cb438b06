"""What reading a body costs the event loop: `make bench-body-cost`.

CPU time of the loop's thread, a MiB, for bodies of each kind and size of `bodies.py`: read here in
steps, and read by the reader process; the lowest of the rounds, for neighbours only add to it.
Beside it the reader's own time, and the longest step of those done here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path

from bodies import KINDS, MIB
from rich.console import Console
from rich.table import Table

from lodestar_extproc.extproc.body_reading import reading
from lodestar_extproc.extproc.reader_main import read_in_time
from lodestar_extproc.extproc.reader_process import ReaderProcess
from lodestar_extproc.extproc.unread_body import UnreadBody
from lodestar_extproc.request import RequestKind


def steps_ms(body: bytes, kind: RequestKind) -> list[float]:
    """CPU of each step of reading it here, ms."""
    took_ms, before_s = [], time.thread_time()
    for _ in UnreadBody(body, kind).steps():
        now_s = time.thread_time()
        took_ms.append(1e3 * (now_s - before_s))
        before_s = now_s
    return [*took_ms, 1e3 * (time.thread_time() - before_s)]


async def away_ms(reader: ReaderProcess, body: bytes, kind: RequestKind) -> float:
    """CPU of this thread while the reader process reads it, ms."""
    before_s = time.thread_time()
    await reader.read(body, kind)
    return 1e3 * (time.thread_time() - before_s)


def child_ms(body: bytes, kind: RequestKind) -> float:
    before_s = time.thread_time()
    read_in_time(reading(body, kind))
    return 1e3 * (time.thread_time() - before_s)


async def measure(sizes: list[int], rounds: int) -> dict[str, dict[str, float]]:
    reader = ReaderProcess()
    running = asyncio.create_task(reader.run())
    reader.want()
    await asyncio.sleep(2.0)
    assert reader.is_ready
    results = {}
    for name, body_of in KINDS.items():
        ids = name == "token ids"
        kind = RequestKind.COMPLETIONS if ids else RequestKind.CHAT_COMPLETIONS
        for mib in sizes:
            body = body_of(mib * MIB)
            here = [steps_ms(body, kind) for _ in range(rounds)]
            results[f"{name}, {mib} MiB"] = {
                "here": min(map(sum, here)) / mib,
                "longest_step_ms": min(map(max, here)),
                "away": min([await away_ms(reader, body, kind) for _ in range(rounds)]) / mib,
                "reader": min(child_ms(body, kind) for _ in range(rounds)) / mib,
            }
    running.cancel()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sizes", type=int, nargs="+", default=(1, 4, 10), help="MiB")
    parser.add_argument("--json", type=Path, help="write the result here too")
    options = parser.parse_args()
    results = asyncio.run(measure(options.sizes, options.rounds))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    table = Table("CPU ms a MiB", box=None)
    for name in ("loop, read here", "longest step, ms", "loop, read away", "reader"):
        table.add_column(name, justify="right")
    for name, result in results.items():
        cells = (f"{result[key]:.2f}" for key in ("here", "longest_step_ms", "away", "reader"))
        table.add_row(name, *cells)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
