"""The table of cures in docs/doctor.md: decisions a request in each trap, and once it is cured.

PYTHONPATH=tests/support:tests/check python tests/support/cure_table.py
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import aiohttp
from test_cures import WITHOUT_CURE, cured

from counted_stack import Count, CountedStack, counted_stack
from trapped_files import TRAPS, Trap


def counted(count: Count) -> str:
    """A count in the page's words: decisions, those served as chosen, and those left open."""
    words = f"{count.decisions / count.requests:.2g}, {count.as_chosen / count.requests:.2g}"
    if count.generated > count.requests:
        words += f", generated {count.generated / count.requests:.2g} times"
    if count.left_open:
        words += f", {count.left_open / count.requests:.2g} left open"
    return words if count.answered == count.requests else f"{words}, {count.answered} answered"


async def before(stack: CountedStack, trap: Trap) -> str:
    try:
        return counted(await stack.count(trap.config))
    except (RuntimeError, TimeoutError, aiohttp.ClientError):
        return "Envoy does not start"


async def show_rows(stack: CountedStack) -> None:
    for trap in TRAPS:
        if trap.rule in WITHOUT_CURE:
            continue
        with tempfile.TemporaryDirectory() as folder:
            config = cured(trap, Path(folder))
        after, in_trap = counted(await stack.count(config)), await before(stack, trap)
        told = "" if in_trap == after else in_trap
        print(f"| `{trap.rule}` | {trap.name} | {told} | {after} |", flush=True)


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with counted_stack(Path(folder)) as stack:
            await show_rows(stack)


if __name__ == "__main__":
    asyncio.run(main())
