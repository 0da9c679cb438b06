"""Kept, KeptMemory: what engines are known to keep, the least recently used first; KeptListener.

Ids are known by keys, prompts by hashes. It knows no fleet and no wire.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from lodestar_extproc.completion import KeptState
from lodestar_extproc.request import InferenceRequest

MAX_KEPT = 50_000
"""Ids that are remembered: about 20 MB. A judgement."""
MAX_BLOCKS = 2**20
"""Of all their prompts: 16 million tokens, 8 MB. Of the least recently used beyond, the
lengths alone are remembered, and who keeps them."""
MAX_TURNS = 10_000
"""That are followed from one turn to the last that goes on from it."""


@dataclass(slots=True)
class Kept:
    """One answer or conversation.

    Attributes:
        prompt: the request that was answered, its hashes where this one holds them; None where it
            was none, or nobody told.
        n_blocks: hashes of its prompt.
        longer: key of one that goes on from it and has its hashes as the first of its own; 0 where
            this one holds them.
        decision_id: of the request, while it is load in the background; else empty.
    """

    address: str
    used_at_s: float
    state: KeptState = KeptState.ENDED
    prompt: InferenceRequest | None = None
    n_blocks: int = 0
    longer: int = 0
    reply_tokens: float = 0.0
    decision_id: str = ""


class KeptListener(Protocol):
    """Who is told what was heard of what engines keep, by key."""

    def heard(self, key: int, decision_id: str, at_s: float) -> None:
        """Something new; it stands for the prompt of that decision, empty for none or no change."""

    def gone(self, key: int, address: str) -> None:
        """*address* keeps it no more."""

    def goes_on(self, decision_id: str, at_s: float) -> None:
        """The request of that decision is about to end, and its engine computes on."""

    def over(self, decision_id: str, at_s: float) -> None:
        """It has ended."""


class KeptMemory:
    """By key of their names. The turns of a conversation share one chain of hashes."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, Kept] = OrderedDict()
        self._holders: OrderedDict[int, int] = OrderedDict()
        self._n_blocks = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def n_blocks(self) -> int:
        """Hashes that are held."""
        return self._n_blocks

    def get(self, key: int) -> Kept | None:
        """What is kept under *key*; None where nobody knows."""
        return self._kept.get(key)

    def recent(self, most: int) -> Iterator[tuple[int, Kept]]:
        """Up to *most* of them, the most recently used first."""
        return islice(reversed(self._kept.items()), most)

    def oldest(self) -> tuple[int, Kept] | None:
        """The least recently used; None where there is nothing."""
        return next(iter(self._kept.items()), None)

    def prompt_of(self, kept: Kept) -> InferenceRequest | None:
        """What *kept* stands for, with its hashes, as far as anyone holds them."""
        if kept.prompt is None or not kept.longer:
            return kept.prompt
        holder: Kept | None = kept
        for _ in range(MAX_TURNS):
            if holder is None or not holder.longer:
                break
            holder = self._kept.get(holder.longer)
        hashes = () if holder is None or holder.prompt is None else holder.prompt.block_hashes
        held = hashes[: kept.n_blocks] if len(hashes) >= kept.n_blocks else ()
        return kept.prompt._replace(block_hashes=held)

    def use(self, key: int) -> None:
        """It is the most recently used now."""
        self._kept.move_to_end(key)
        if key in self._holders:
            self._holders.move_to_end(key)

    def add(self, key: int, kept: Kept, prompt: InferenceRequest | None) -> None:
        """Remember *kept*, which stands for *prompt*, under a key of which nothing is known."""
        self._kept[key] = kept
        kept.prompt = prompt
        if prompt is None or not prompt.block_hashes:
            return
        kept.n_blocks = len(prompt.block_hashes)
        self._share(key, prompt)
        self._holders[key] = kept.n_blocks
        self._n_blocks += kept.n_blocks
        while self._n_blocks > MAX_BLOCKS and len(self._holders) > 1:
            self._let_go(next(iter(self._holders)))

    def excess(self) -> int | None:
        """The key of one that is too much; None where all have room."""
        return next(iter(self._kept)) if len(self._kept) > MAX_KEPT else None

    def pop(self, key: int) -> Kept | None:
        """Forget what is kept under *key*."""
        self._let_go(key)
        return self._kept.pop(key, None)

    def _share(self, key: int, prompt: InferenceRequest) -> None:
        """What *prompt*, of *key*, goes on from needs no hashes of its own: they are its first."""
        own = prompt.keeping
        before_key = 0 if own is None else own.continues or 0
        before = self._kept.get(before_key)
        theirs = None if before is None or before_key == key else self.prompt_of(before)
        if before is None or theirs is None:
            return
        if prompt.block_hashes[: before.n_blocks] == theirs.block_hashes:
            self._let_go(before_key)
            before.longer = key

    def _let_go(self, key: int) -> None:
        """Hold the hashes of *key* no more."""
        self._n_blocks -= self._holders.pop(key, 0)
        kept = self._kept.get(key)
        if kept is not None and kept.prompt is not None:
            kept.prompt = kept.prompt._replace(block_hashes=())
