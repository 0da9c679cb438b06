"""A Mooncake trace as text: equal hash ids are equal words.

The trace is public at https://github.com/kvcache-ai/Mooncake (FAST25-release/traces, Apache-2.0).
Prompts and answers are shortened, and arrivals drawn anew, as in
`lodestar_extproc/evaluation/workloads/mooncake.py`, which says why.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from session_text import LETTERS_PER_TOKEN

from lodestar_extproc.evaluation.chats import BYTES_PER_TOKEN, Arrival, ChatKind, text
from lodestar_extproc.evaluation.workloads.mooncake import (
    MAX_PROMPT_TOKENS,
    MIN_OUTPUT_TOKENS,
    MIN_PROMPT_TOKENS,
    OUTPUT_RATIO,
    TRACE_TOKENS_PER_HASH,
    read_mooncake,
)

TRACE_FILES: Mapping[str, str] = MappingProxyType(
    {"conversation": "mooncake/conversation_trace.jsonl"}
)
PUBLIC_AT = "https://github.com/kvcache-ai/Mooncake/tree/main/FAST25-release/traces"
TOKENS_PER_HASH = 50
LETTERS_PER_HASH = round(TOKENS_PER_HASH * LETTERS_PER_TOKEN)


def replayed(path: Path, rate_per_s: float, seed: int, duration_s: float) -> Iterator[Arrival]:
    """The trace at *path* from a row drawn by *seed*, as a Poisson process.

    Raises:
        FileNotFoundError: it is not there; says where the public can get it.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"no trace {path}: name its folder by --traces, or get the trace from {PUBLIC_AT}"
        )
    rows = read_mooncake(path, TOKENS_PER_HASH).rows
    rng = random.Random(seed)
    start, n, at_s = rng.randrange(len(rows)), 0, rng.expovariate(rate_per_s)
    while at_s <= duration_s:
        row = rows[(start + n) % len(rows)]
        scaled = round(row.prompt_tokens * TOKENS_PER_HASH / TRACE_TOKENS_PER_HASH)
        tokens = min(max(scaled, MIN_PROMPT_TOKENS), MAX_PROMPT_TOKENS)
        output_tokens = max(MIN_OUTPUT_TOKENS, round(row.output_tokens * OUTPUT_RATIO))
        said = words(row.hash_ids.tolist(), round(tokens * LETTERS_PER_TOKEN))
        yield Arrival(at_s, ChatKind.CHAT, (("user", said),), output_tokens)
        n, at_s = n + 1, at_s + rng.expovariate(rate_per_s)


def words(hash_ids: Sequence[int], letters: int) -> str:
    """A prompt of *letters*; the last hash id goes on where they end before it.

    >>> words([1, 2], 150)[:91] == words([1, 3], 150)[:91], len(words([1], 300))
    (True, 300)
    """
    needed = -(-letters // LETTERS_PER_HASH)
    ids = [hash_ids[min(i, len(hash_ids) - 1)] for i in range(needed)]
    return "".join(_piece(hash_id, i) for i, hash_id in enumerate(ids))[:letters]


def _piece(hash_id: int, place: int) -> str:
    tokens = -(-LETTERS_PER_HASH // BYTES_PER_TOKEN)
    return text(random.Random(f"{hash_id} {place}"), tokens)[:LETTERS_PER_HASH]
