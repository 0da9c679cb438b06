"""`lodestar-extproc` that tells a soak more of itself: python soak_service.py FILE serve ...

No admin page tells how many tasks there are, or objects of which kind: on SIGUSR2 it writes that
into FILE. On SIGUSR1 its allocator gives back what it only keeps for later, so that what the
process then has is what it needs.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import signal
import sys
import threading
from collections import Counter
from pathlib import Path

from lodestar_extproc.commands.cli import main as run_command

N_KINDS = 40
"""Kinds of objects that are told, the most frequent first; of those made since the service was ready."""


def write_what_is_held(file: Path) -> None:
    """Tasks by what they run, threads of Python by name, and objects by their class, to *file* as JSON, in one rename."""
    tasks = Counter(task.get_coro().__qualname__ for task in asyncio.all_tasks())
    gc.collect()
    objects = Counter(f"{type(o).__module__}.{type(o).__qualname__}" for o in gc.get_objects())
    threads = Counter(thread.name.rstrip("0123456789") for thread in threading.enumerate())
    held = {
        "tasks": dict(tasks),
        "threads": dict(threads),
        "objects": dict(objects.most_common(N_KINDS)),
    }
    half = file.with_suffix(".half")
    half.write_text(json.dumps(held))
    half.replace(file)


def give_back(*_: object) -> None:
    """As much as the C library can; other C libraries have no such call, nor such a habit."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


if __name__ == "__main__":
    held_file = Path(sys.argv.pop(1))
    signal.signal(signal.SIGUSR1, give_back)
    signal.signal(signal.SIGUSR2, lambda *_: write_what_is_held(held_file))
    run_command()
