"""What became of sessions and of what caches held, from the records of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from lodestar_extproc.simulator.defaults import BLOCK_TOKENS
from lodestar_extproc.simulator.record import RequestRecord


@dataclass(frozen=True, slots=True)
class SessionFigures:
    """Of all sessions together.

    Attributes:
        moves_per_turn: of the turns after a first, those on another endpoint than the one before.
        turn_s: seconds from a session's first turn to its end, over its turns.
    """

    moves_per_turn: float
    turn_s: float


def session_figures(records: Sequence[RequestRecord]) -> SessionFigures | None:
    """Of sessions with two turns or more that were served; None without any."""
    sessions: dict[int, list[RequestRecord]] = {}
    for record in records:
        if record.session >= 0 and not record.failed:
            sessions.setdefault(record.session, []).append(record)
    several = [turns for turns in sessions.values() if len(turns) > 1]
    if not several:
        return None
    pairs = [pair for turns in several for pair in pairwise(turns)]
    n_moves = sum(earlier.endpoint != later.endpoint for earlier, later in pairs)
    spans_s = [t[-1].arrived_s + t[-1].e2e_s - t[0].arrived_s for t in several]
    n_turns = sum(len(turns) for turns in several)
    return SessionFigures(n_moves / len(pairs), sum(spans_s) / n_turns)


def recomputed_ratio(records: Sequence[RequestRecord], first: int) -> float:
    """Of the prompt tokens from record *first* on: computed, though they had been asked before."""
    seen: set[int] = set()
    n_tokens = n_recomputed = 0
    for number, record in enumerate(records):
        ids = record.block_ids[: record.prompt_tokens // BLOCK_TOKENS].tolist()
        n_known = _known(seen, ids)
        seen.update(ids[n_known:])
        if number >= first and not record.failed:
            n_tokens += record.prompt_tokens
            n_recomputed += max(0, BLOCK_TOKENS * n_known - record.cached_tokens)
    return n_recomputed / n_tokens if n_tokens else 0.0


def _known(seen: set[int], ids: Sequence[int]) -> int:
    """Leading *ids* that were *seen*; where one was, so were those before it; O(log n)."""
    low, high = 0, len(ids)
    while low < high:
        middle = (low + high) // 2
        if ids[middle] in seen:
            low = middle + 1
        else:
            high = middle
    return low
