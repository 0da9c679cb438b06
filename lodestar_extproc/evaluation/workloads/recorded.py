"""Recorded: requests in a format of our own, one JSON object a line.

    {"arrival_s": 0.0, "input_tokens": 900, "output_tokens": 120,
     "block_hashes": [17, 4, "c0ffee"], "session": "a"}

`block_hashes` has one entry for each full block of 16 tokens, numbers or text; equal entries mean
equal prefixes. Without it, or where it ends early, blocks are shared with nobody. `session` is
optional: its requests come in the order of their times, none before its predecessor has ended.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import xxhash

from lodestar_extproc.evaluation.workloads.blocks import FreshBlocks
from lodestar_extproc.simulator.arrival import BlockIds, VirtualRequest
from lodestar_extproc.simulator.defaults import BLOCK_TOKENS

MIN_THINK_S = 0.02
"""Between the end of an answer and the session's next request."""


class Replay:
    """Requests at their recorded times, those of a session one after the other."""

    def __init__(self, requests: tuple[VirtualRequest, ...]) -> None:
        self.requests = requests
        self._sessions: dict[int, list[VirtualRequest]] = {}
        for request in requests:
            self._sessions.setdefault(request.session, []).append(request)
        has_turns = any(request.turn > 0 for request in requests)
        self.min_think_s = MIN_THINK_S if has_turns else math.inf

    def __iter__(self) -> Iterator[VirtualRequest]:
        return (request for request in self.requests if request.turn == 0)

    def next_turns(self, request: VirtualRequest, ended_at_s: float) -> tuple[VirtualRequest, ...]:
        """The session's next request, not before its own time."""
        if request.session < 0 or request.turn + 1 == len(self._sessions[request.session]):
            return ()
        follow = self._sessions[request.session][request.turn + 1]
        return (replace(follow, at_s=max(follow.at_s, ended_at_s + MIN_THINK_S)),)


@dataclass(frozen=True, slots=True)
class Recorded:
    """Requests as recorded, by time."""

    requests: tuple[VirtualRequest, ...]

    def generate(self, rate_per_s: float, seed: int, n_requests: int) -> Replay:  # noqa: ARG002
        """The first *n_requests*, their times stretched to *rate_per_s*."""
        chosen = self.requests[:n_requests]
        span_s = chosen[-1].at_s - chosen[0].at_s
        stretch = (len(chosen) - 1) / (span_s * rate_per_s) if span_s > 0 else 1.0
        started_s = chosen[0].at_s
        return Replay(tuple(replace(r, at_s=(r.at_s - started_s) * stretch) for r in chosen))


def read_recorded(path: Path) -> Recorded:
    """The requests at *path*.

    Raises:
        ValueError: a line is not such a request, or there is none.
    """
    read: list[tuple[VirtualRequest, str]] = []
    fresh = FreshBlocks(0)
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = orjson.loads(line)
            read.append((_request(entry, fresh), str(entry.get("session") or "")))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"{path}, line {number}: wants arrival_s, input_tokens, output_tokens and, if "
                f"shared, block_hashes, session: {error}"
            ) from None
    if not read:
        raise ValueError(f"{path} has no requests")
    return Recorded(tuple(_in_turn(read)))


def _in_turn(read: list[tuple[VirtualRequest, str]]) -> Iterator[VirtualRequest]:
    """By time, with the numbers of sessions and turns."""
    numbers: dict[str, int] = {}
    n_turns: dict[int, int] = {}
    for request, name in sorted(read, key=lambda pair: pair[0].at_s):
        if not name:
            yield request
            continue
        session = numbers.setdefault(name, len(numbers))
        n_turns[session] = n_turns.get(session, -1) + 1
        yield replace(request, session=session, turn=n_turns[session])


def _request(entry: dict[str, Any], fresh: FreshBlocks) -> VirtualRequest:
    prompt_tokens, output_tokens = int(entry["input_tokens"]), int(entry["output_tokens"])
    if prompt_tokens < 1 or output_tokens < 1:
        raise ValueError("a request needs at least one input and one output token")
    known = _block_ids(entry.get("block_hashes") or ())[: prompt_tokens // BLOCK_TOKENS]
    own = fresh.take(prompt_tokens - BLOCK_TOKENS * len(known))
    return VirtualRequest(
        at_s=float(entry["arrival_s"]),
        block_ids=np.concatenate([known, own]),
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
    )


def _block_ids(hashes: Any) -> BlockIds:
    """Chained, so that a block is known by all that comes before it, too."""
    ids, seed = np.empty(len(hashes), dtype=np.uint64), 0
    for place, block in enumerate(hashes):
        seed = xxhash.xxh3_64_intdigest(str(block).encode(), seed)
        ids[place] = seed
    return ids
