"""BlockEngine: a prefix cache that evicts as vLLM's and tells of it in events, and nothing else.

Blocks are freed when a request ends, its last first, and reused in the order in which they were
freed; a block that is stored, or reused, is told of at once.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from lodestar_extproc.fleet.kv_events.events import BlocksRemoved, BlocksStored, CacheEvent

SIZE = 16


@dataclass(eq=False)
class Running:
    """One request: its tokens, blocks, and how many tokens of it are computed."""

    tokens: list[int]
    cached: int = 0
    computed: int = 0
    blocks: list[int] = field(default_factory=list)
    hashes: list[int] = field(default_factory=list)

    def hash_blocks(self) -> None:
        """Hashes of its full blocks, each of all before it."""
        for at in range(len(self.hashes) * SIZE, len(self.tokens) // SIZE * SIZE, SIZE):
            before = self.hashes[-1] if self.hashes else 0
            block = hash((before, *self.tokens[at : at + SIZE])) & (
                2**63 - 1
            )  # of numbers: always the same
            self.hashes.append(block)


class BlockEngine:
    """*n_blocks* of `SIZE` tokens; *events* are those since they were last taken."""

    def __init__(self, n_blocks: int) -> None:
        self._free: OrderedDict[int, int | None] = OrderedDict((n, None) for n in range(n_blocks))
        self._held: dict[int, tuple[int, int]] = {}  # block and users, by hash
        self._hash_of: dict[int, int] = {}
        self.events: list[CacheEvent] = []

    def start(self, tokens: list[int]) -> Running:
        """Look up its beginning, but for the last token."""
        running = Running(tokens)
        running.hash_blocks()
        for chain in running.hashes[: (len(tokens) - 1) // SIZE]:
            if chain not in self._held:
                break
            block, users = self._held[chain]
            self._free.pop(block, None)
            self._held[chain] = block, users + 1
            running.blocks.append(block)
        running.cached = running.computed = len(running.blocks) * SIZE
        return running

    def step(self, running: Running, n_tokens: int) -> None:
        """Compute so many tokens more, and tell of the blocks that they fill."""
        end = min(running.computed + n_tokens, len(running.tokens))
        running.hash_blocks()
        chain = running.hashes
        stored = []
        first = len(running.blocks)
        for n in range(first, end // SIZE):
            block = self._new_block()
            running.blocks.append(block)
            if chain[n] not in self._held:
                self._held[chain[n]] = block, 1
                self._hash_of[block] = chain[n]
                stored.append(chain[n])
        if stored:
            parent = chain[first - 1] if first else None
            self.events.append(BlocksStored(stored, parent, SIZE))
        running.computed = end

    def generate(self, running: Running, token: int) -> None:
        """One token of its answer."""
        running.tokens.append(token)
        self.step(running, 1)

    def end(self, running: Running) -> None:
        """Free its blocks."""
        for block in reversed(running.blocks):
            chain = self._hash_of.get(block)
            if chain is None:
                self._free[block] = None
                continue
            _, users = self._held[chain]
            self._held[chain] = block, users - 1
            if users == 1:
                self._free[block] = None

    def take_events(self) -> list[CacheEvent]:
        """Those that came since."""
        taken, self.events = self.events, []
        return taken

    def _new_block(self) -> int:
        block, _ = self._free.popitem(last=False)
        chain = self._hash_of.pop(block, None)
        if chain is not None:
            del self._held[chain]
            self.events.append(BlocksRemoved([chain]))
        return block
